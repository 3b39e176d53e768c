"""What a user does wrong with `ns-train das3r`: the last line on the screen is our sentence, nothing buries it, the
exit code is not 0, and no run is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_videos import frame_image, write_video

MAX_LINES = 12
"""Of nerfstudio's and our own before the sentence."""

RUNNER = Path(__file__).with_name("ns_train_mistakes.py")

MISTAKES: dict[str, tuple[list[str], str]] = {
    "no data": ([], "--data is missing: ns-train das3r-lite --data VIDEO"),
    "a path that is not there": (["--data", "holiday.mp4"], "holiday.mp4 does not exist"),
    "a folder without images": (["--data", "empty"], "empty holds no"),
    "a single image": (["--data", "one.png"], "folder of"),
    "a file that is not a video": (["--data", "words.mp4"], "words.mp4"),
    "a video of one frame": (["--data", "short.mp4"], "at least 2"),
    "black frames": (["--data", "black.mp4"], "there is nothing to reconstruct"),
    "a GPU that is not there": (["--data", "shots", "--machine.device-type", "cuda"], "--machine.device-type cpu"),
    "two devices": (["--data", "shots", "--machine.num-devices", "2"], "--machine.num-devices is 2"),
    "no steps": (["--data", "shots", "--max-num-iterations", "0"], "--max-num-iterations must be 1 or more, got 0"),
    "a checkpoint folder that is not there": (
        ["--data", "shots", "--load-dir", "gone"],
        "--load-dir gone does not exist",
    ),
    "a checkpoint folder without one": (["--data", "shots", "--load-dir", "empty"], "holds no checkpoint"),
    "a config that is not there": (["--load-config", "gone.yml"], "gone.yml does not exist"),
    "an output folder that is a file": (["--data", "shots", "--output-dir", "words.mp4/out"], "words.mp4 is a file"),
    "a field of view of 500 degrees": (
        ["--data", "shots", "das3r-data", "--fov-deg", "500"],
        "--fov-deg must lie between",
    ),
    "masks that are not there": (["--data", "shots", "das3r-data", "--masks", "gone"], "--masks gone does not exist"),
    "cameras that are not there": (
        ["--data", "shots", "das3r-data", "--cameras", "gone"],
        "--cameras gone does not exist",
    ),
    "a start after the end": (["--data", "clip.mp4", "das3r-data", "--video.start-s", "99"], "--video.start-s 99"),
}


@pytest.fixture(scope="module")
def screens(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit code and screen of every mistake; all made in one folder."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    (folder / "words.mp4").write_text("just some words\n" * 100, encoding="utf-8")
    Image.fromarray(frame_image(0)).save(folder / "one.png")
    write_video(folder / "short.mp4", [frame_image(0)])
    write_video(folder / "black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5)
    write_video(folder / "clip.mp4", [frame_image(i) for i in range(10)])
    (folder / "shots").mkdir()
    for i in range(4):
        Image.fromarray(frame_image(i)).save(folder / "shots" / f"{i}.png")
    lines = [["das3r-lite", *arguments] for arguments, _ in MISTAKES.values()]
    done = subprocess.run(
        [sys.executable, str(RUNNER)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    left = list((folder / "outputs").rglob("config.yml")) if (folder / "outputs").exists() else []
    assert not left, "a run is left behind"
    return dict(zip(MISTAKES, map(tuple, json.loads(done.stdout.splitlines()[-1]))))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_last_line_is_the_sentence(screens, mistake):
    code, screen = screens[mistake]
    lines = [line for line in screen.splitlines() if line.strip()]
    assert code == 1, screen
    assert lines[-1].startswith("ns-train das3r-lite: "), screen
    assert MISTAKES[mistake][1] in lines[-1], screen
    assert len(lines) <= MAX_LINES, screen
    assert "Traceback" not in screen
