"""The clock of benchmarks/end_to_end.py, and what it starts."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_stages_add_up_and_leave_out_what_is_inside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import end_to_end_probe as probe

    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = probe.StageClock("start")

    def work(seconds: float) -> None:
        now[0] += seconds

    trainer = SimpleNamespace(save_checkpoint=lambda: work(3), train=lambda: (work(1), trainer.save_checkpoint()))
    clock.time(trainer, "save_checkpoint", "saving")
    clock.time(trainer, "train", "training")
    clock.time(trainer, "nothing_of_that_name", "nowhere")
    work(2)
    trainer.train()
    work(4)
    clock.write(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["stages"] == {"start": 6.0, "saving": 3.0, "training": 1.0}
    assert found["checkpoint_s"] == 6.0  # 2 before the training, 1 in it, 3 of saving


def test_there_and_back(tmp_path: Path) -> None:
    import end_to_end

    images = tmp_path / "images"
    images.mkdir()
    for name in "abc":
        (images / f"{name}.jpg").write_text(name)
    folder = end_to_end.there_and_back(images, 7, tmp_path / "links")
    assert "".join(path.read_text() for path in sorted(folder.iterdir())) == "abcbabc"


def test_code_under_measurement_is_the_one_that_nerfstudio_finds(tmp_path: Path) -> None:
    import end_to_end

    code = tmp_path / "code"
    code.mkdir()
    (code / "pyproject.toml").write_text(
        '[project]\nname = "das3r-ns"\n[project.entry-points."nerfstudio.method_configs"]\nolder = "das3r_ns.a:b"\n\n'
    )
    version = end_to_end.Version("base", code, tmp_path / "base", [])
    sys.path.insert(0, str(version.place / "site"))
    try:
        from importlib.metadata import entry_points

        assert entry_points(group="nerfstudio.method_configs").names == {"older"}
    finally:
        sys.path.pop(0)
