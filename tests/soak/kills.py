"""Kill trainings, exports and renders at random moments, a third of them within a save; each goes on to the same bytes.

`test_soak.py` runs this file in a process of its own, and says how often. Each attempt is a fork of that process, which
has imported everything and has started no thread: torch cannot train in a fork of a process that has trained.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import scene_from_truth, tiny_config, train

from das3r_ns import render
from das3r_ns.files import whole
from das3r_ns.runs.checkpoints import checkpoint_path, checkpoint_steps

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DAS3R_SOAK_KILLS", "2"))
SEED = int(os.environ.get("DAS3R_SOAK_SEED", "0"))
MAX_SECONDS = 600.0


def forked(work: Callable[[], object], log: Path) -> int:
    """Start `work` in a process of its own; returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        whole.CLAIM_SECONDS = 0.0  # what the killed process left is younger than it would be in earnest
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def finished(number: int, log: Path) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    assert code == 0, log.read_text(encoding="utf-8")[-3000:]


def killed(number: int, after_s: float, marker: Path | None) -> bool:
    """Kill the process after a while, or when it has made `marker`; returns whether it was still running."""
    end = time.monotonic() + (MAX_SECONDS if marker is not None else after_s)
    while time.monotonic() < end and not (marker is not None and marker.exists()):
        if os.waitpid(number, os.WNOHANG)[0]:
            return False
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def within_a_write(marker: Path, nth: int) -> None:
    """Let the n-th file of this process be half written for ever, and say so by `marker`."""
    original, count = whole._to_disk, [0]

    def half(path: Path) -> None:
        if path.is_file():
            count[0] += 1
            if count[0] == nth:
                os.truncate(path, path.stat().st_size // 2)
                marker.touch()
                time.sleep(MAX_SECONDS)
        original(path)

    whole._to_disk = half


def left_over(*folders: Path) -> list[str]:
    return [str(p) for folder in folders for p in folder.rglob(".writing-*")]


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> dict[str, Any]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("soak")
    scene = scene_from_truth(folder / "walk")
    log = folder / "log.txt"
    start = time.monotonic()
    finished(forked(lambda: train(config_of(scene, folder / "run")), log), log)
    seconds = {"train": time.monotonic() - start}
    run = folder / "run" / "walk" / "das3r-lite" / "now"
    for kind, name in (("export", "splat.ply"), ("render", "static.mp4")):
        start = time.monotonic()
        finished(forked(partial(results, kind, run, folder / name), log), log)
        seconds[kind] = time.monotonic() - start
    return {"folder": folder, "scene": scene, "run": run, "seconds": seconds}


def config_of(scene: Path, out: Path, **settings: Any) -> Any:
    config = tiny_config("das3r-lite", scene, out)
    config.steps_per_save, config.timestamp = 4, "now"
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def results(kind: str, run: Path, path: Path) -> None:
    if kind == "export":
        render.export_splat(run / "config.yml", path)
    else:
        render.render_static(run / "config.yml", path)


@pytest.mark.parametrize("attempt", range(KILLS))
def test_a_killed_command_leaves_nothing_and_goes_on_to_the_same_bytes(setting, tmp_path, monkeypatch, attempt):
    chance = random.Random(1000 * SEED + attempt)
    kind = ("train", "export", "train", "render")[attempt % 4]
    scene, run, log = setting["scene"], setting["run"], tmp_path / "log.txt"
    marker = tmp_path / "half" if chance.random() < 1 / 3 else None
    nth = chance.randint(1, 8) if kind == "train" else 1
    after_s = chance.uniform(0, setting["seconds"][kind])
    path = tmp_path / ("splat.ply" if kind == "export" else "static.mp4")
    path.write_bytes(b"old")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def work() -> None:
        if marker is not None:
            within_a_write(marker, nth)
        if kind == "train":
            train(config_of(scene, tmp_path / "first"))
        else:
            results(kind, run, path)

    was_running = killed(forked(work, log), after_s, marker)
    models = tmp_path / "first" / "walk" / "das3r-lite" / "now" / "nerfstudio_models"
    if kind != "train":
        expected = (setting["folder"] / path.name).read_bytes()
        assert path.read_bytes() in ((b"old",) if was_running and marker is not None else (b"old", expected))
        finished(forked(lambda: results(kind, run, path), log), log)
        assert path.read_bytes() == expected
    elif checkpoint_steps(models)[:1] != [15]:
        resumes = {"load_dir": models} if checkpoint_steps(models) else {}
        again = config_of(scene, tmp_path / ("second" if resumes else "first"), **resumes)
        finished(forked(lambda: train(again), log), log)
        models = again.output_dir / "walk" / "das3r-lite" / "now" / "nerfstudio_models"
    if kind == "train":
        wanted = checkpoint_path(run / "nerfstudio_models", 15).read_bytes()
        assert checkpoint_path(models, 15).read_bytes() == wanted
    assert left_over(tmp_path) == []
    # A fork ends without Python's own clean-up, so that one link to ffmpeg may be left; the next start sweeps it.
    assert len(list(temporary.glob("das3r-*"))) <= 1
