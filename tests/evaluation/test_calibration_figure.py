"""The reliability diagram: its error is that of hand-made counts, and every clip counts the same."""

from das3r_ns.evaluation.bench.table import BenchTable, Row
from das3r_ns.evaluation.figures import draw_calibration


def test_the_calibration_error_weighs_clips_alike(tmp_path):
    empty, nothing = [0] * 8, [0.0] * 8
    perfect = ([20, *empty, 20], [1, *empty, 19], [1.0, *nothing, 19.0])  # given 0.05 and 0.95, as many move
    wrong = ([4000, *empty, 0], [2200, *empty, 0], [200.0, *nothing, 0.0])  # given 0.05, 55 % move
    path, error = draw_calibration({"perfect": perfect}, tmp_path / "a.png")
    assert path.is_file()
    assert error < 1e-9
    _, error = draw_calibration({"perfect": perfect, "wrong": wrong}, tmp_path / "b.png")
    # First bin: 0.5 + 1 clips' worth of pixels, of which (0.5 * 0.05 + 0.55) / 1.5 = 38.3 % move: off by 1/3.
    assert abs(error - 1.5 / 2 / 3) < 1e-9


def test_a_benchmark_with_masks_draws_its_calibration(tmp_path):
    masks = {
        "j_mean": 0.5,
        "j_mean_by_threshold": {"0.5": 0.5},
        "calibration": {"pixels": [10] * 10, "moving": list(range(10)), "probability": [1.0] * 10},
    }
    table = BenchTable("x", (), [Row("clip", {"masks": {"values": masks}}), Row("failed", {})])
    table.write(tmp_path)
    assert (tmp_path / "calibration.png").is_file()
    assert "calibration error" in (tmp_path / "table.md").read_text()
    assert BenchTable("x", (), [Row("failed", {})]).calibration() == {}
