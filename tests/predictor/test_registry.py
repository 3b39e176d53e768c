"""Predictors by name: those of other packages appear in the help, are taken and saved, and cannot break anything."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from written_videos import frame_image, write_video

from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.predictor import registry

EXAMPLE = Path(__file__).parents[2] / "docs" / "example_predictor.py"


@pytest.fixture
def site(tmp_path) -> Path:
    """A folder that looks like an installed package: the example of the documentation, under an entry point."""
    folder = tmp_path / "site"
    info = folder / "still_camera-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "example_predictor.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: still-camera\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[das3r_ns.predictors]\nstill = example_predictor:StillCameraSettings\n")
    return folder


def run(site: Path, code: str, *arguments: str) -> str:
    script = f"import sys; sys.path.insert(0, {str(site)!r})\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60


def test_a_predictor_of_another_package_predicts_from_the_command_line(site, tmp_path):
    video = write_video(tmp_path / "clip.mp4", [frame_image(i, 64, 96) for i in range(4)])
    scene = tmp_path / "scene"
    code = "from das3r_ns.cli import main; main()"
    command = ("predict", "--data", str(video), "--out", str(scene), "--predictor", "still", "--still.distance", "2.5")
    run(site, code, *command)
    from das3r_ns.scene import read_scene

    found = read_scene(scene)
    assert found.provenance["predictor"] == "still"
    assert found.provenance["options"]["still"]["distance"] == 2.5
    assert float(found.depth.min()) == pytest.approx(2.5, rel=1e-3)


def test_its_settings_stand_in_the_help_and_in_a_saved_run(site):
    said = run(
        site,
        """
        import tyro, yaml
        from das3r_ns.dataparser.parser import Das3rDataParserConfig
        config = tyro.cli(Das3rDataParserConfig, args=["--predictor", "still", "--still.distance", "3"])
        again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
        print(again.predictor, again.still.distance, again.geometric.flow)
        try:
            tyro.cli(Das3rDataParserConfig, args=["--help"])
        except SystemExit:
            pass
        """,
    )
    assert "still 3.0 auto" in said
    assert "--still.distance" in said
    assert "z-depth of every pixel" in said


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("StillCameraSettings = dict", "not a class derived from"),
        ("raise SystemError('broken\\nbadly')", "SystemError: broken"),
    ],
)
def test_a_predictor_that_cannot_be_imported_is_one_line_and_stops_nothing(site, source, why):
    (site / "example_predictor.py").write_text(source)
    said = run(
        site,
        """
        from das3r_ns.predictor import registry
        print(registry.PREDICTORS.keys() == registry.BUILT_IN.keys(), *registry.PROBLEMS, sep="\\n")
        """,
    ).splitlines()
    assert said[0] == "True"
    assert len(said) == 2
    assert said[1].startswith("The predictor 'still' (example_predictor:StillCameraSettings) is left out")
    assert why in said[1]


def test_a_name_that_is_taken_is_left_out(site):
    info = site / "still_camera-1.0.dist-info"
    (info / "entry_points.txt").write_text("[das3r_ns.predictors]\ngeometric = example_predictor:StillCameraSettings\n")
    said = run(site, "from das3r_ns.predictor import registry; print(registry.PROBLEMS[0])")
    assert "name is taken" in said


def test_a_predictor_that_is_gone_is_said():
    options = PredictionOptions()
    options.predictor = "still"  # as a run that was saved when the package was there
    with pytest.raises(ValueError, match="--predictor still: there is no such predictor, only geometric, network"):
        registry.resolve(options)


def test_a_run_of_auto_finds_the_scenes_of_every_predictor_that_auto_may_have_meant():
    options = PredictionOptions()
    assert registry.meant_by(options) == ("geometric", "network")
    options.network.weights = "mine"
    assert registry.meant_by(options) == ("network", "geometric")
    assert registry.meant_by(PredictionOptions(predictor="network")) == ("network",)


def test_the_order_of_fields_is_that_of_saved_runs():
    names = list(PredictionOptions.__dataclass_fields__)
    assert names[:4] == ["video", "predictor", "geometric", "network"]
