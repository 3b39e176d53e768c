"""Kill predictions, trainings, resumed trainings, exports and renders: each must go on to the bytes of one undisturbed.

    python tests/soak/kills.py --kills 100

A third of the kills strike within a save: a file is half written, or about to be moved to its place. The others strike
at a random moment. Every attempt is a fork of this process, which has imported everything, has started no thread and
has computed nothing, so that an attempt costs seconds; torch cannot train in a fork of a process that has trained.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from nerfstudio.scripts import exporter as _exporter
from nerfstudio.scripts import train as _train
from tiny_run import scene_from_truth, tiny_config, train

from das3r_ns import config as methods
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.predict import predict
from das3r_ns.files import whole
from das3r_ns.predictor.geometric import predictor as _geometric
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.render import splat, static_video
from das3r_ns.runs import loading as _loading
from das3r_ns.runs.checkpoints import checkpoint_path, checkpoint_steps
from das3r_ns.scene import writing
from das3r_ns.synthetic import SyntheticConfig

KINDS = ("train", "predict", "resume", "export", "render")
STEPS, SAVE_EVERY, HALF = 8, 3, 5
MAX_SECONDS = 300.0
QUICK = PredictionOptions(geometric=GeometricPredictorConfig(masks=MaskConfig(refiner="none")))
IMPORTED = (methods, _geometric, _loading, _exporter, _train)
"""What the commands import when they need it."""


class Writes:
    """Counts the places of a process at which a file is not whole, and can let it die at one of them."""

    def __init__(self, die_at: int | None) -> None:
        self.count = 0
        self.die_at = die_at
        half, replace, save, image = whole._to_disk, os.replace, np.save, writing._write_image

        def to_disk(path: Path) -> None:
            if path.is_file():
                self.here(path)
            half(path)

        def moved(source: Any, target: Any, **other: Any) -> None:
            self.here()
            replace(source, target, **other)
            self.here()

        def saved(file: Any, *values: Any, **other: Any) -> None:
            save(file, *values, **other)
            self.here(file if isinstance(file, Path) else None)

        def drawn(path: Path, values: Any) -> None:
            image(path, values)
            self.here(path)

        whole._to_disk, os.replace, np.save, writing._write_image = to_disk, moved, saved, drawn

    def here(self, path: Path | None = None) -> None:
        self.count += 1
        if self.count == self.die_at:
            if path is not None:
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object], folder: Path, die_at: int | None = None) -> int:
    """Start `work` in a process of its own, with a temporary folder in `folder`; returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        (folder / "temporary").mkdir(exist_ok=True)
        tempfile.tempdir = str(folder / "temporary")
        whole.CLAIM_SECONDS = 0.0  # what the killed process left is younger than it would be in earnest
        writes = Writes(die_at)
        work()
        (folder / "writes").write_text(str(writes.count), encoding="utf-8")
        atexit._run_exitfuncs()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def finished(work: Callable[[], object], folder: Path) -> tuple[float, int]:
    """Let `work` come to its end; how long it took, and how many writes it made."""
    start = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(forked(work, folder), 0)[1])
    assert code == 0, (folder / "log.txt").read_text(encoding="utf-8")[-4000:]
    return time.monotonic() - start, int((folder / "writes").read_text(encoding="utf-8"))


def killed(number: int, after_s: float) -> bool:
    """Kill the process after a while; returns whether it was killed, by this or by itself."""
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(number, 0)[1])


def write_dataset(folder: Path) -> Path:
    """Images with cameras, as another program leaves them, large enough to be predicted."""
    made = scene_from_truth(folder / "made", SyntheticConfig(num_frames=4, height=72, width=96))
    shutil.move(made / "images", folder / "images")
    known = json.loads((made / "transforms.json").read_text(encoding="utf-8"))
    for frame in known["frames"]:
        for key in [key for key in frame if key.endswith("_path") and key != "file_path"]:
            del frame[key]
    known.pop("ply_file_path", None)
    (folder / "transforms.json").write_text(json.dumps(known), encoding="utf-8")
    shutil.rmtree(made)
    return folder


def train_for(scene: Path, out: Path, **settings: Any) -> None:
    """Train for a few steps, with saves between."""
    config = tiny_config("das3r-lite", scene, out)
    config.max_num_iterations, config.steps_per_save, config.timestamp = STEPS, SAVE_EVERY, "now"
    for name, value in settings.items():
        setattr(config, name, value)
    train(config)


class Soak:
    """Undisturbed results, and attempts to disturb them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scene = scene_from_truth(folder / "walk", SyntheticConfig(num_frames=4, height=48, width=64))
        self.data = write_dataset(folder / "data")
        self.run = folder / "run" / "walk" / "das3r-lite" / "now"
        self.cost: dict[str, tuple[float, int]] = {"train": finished(partial(self._train, folder / "run"), folder)}
        half = partial(self._train, folder / "half", max_num_iterations=HALF)
        finished(half, folder)
        self.half = folder / "half" / "walk" / "das3r-lite" / "now" / "nerfstudio_models"
        self.cost["resume"] = finished(partial(self._train, folder / "resumed", load_dir=self.half), folder)
        self.wanted = {
            "train": checkpoint_path(self.run / "nerfstudio_models", STEPS - 1).read_bytes(),
            "resume": self._last(folder / "resumed"),
        }
        assert self.wanted["train"] == self.wanted["resume"], "a resumed run is not the undisturbed one"
        for kind, name in (("predict", "scene"), ("export", "splat.ply"), ("render", "static.mp4")):
            self.cost[kind] = finished(partial(self._result, kind, folder / name), folder)
            self.wanted[kind] = content(folder / name)

    def _train(self, out: Path, **settings: Any) -> None:
        train_for(self.scene, out, **settings)

    def _last(self, out: Path) -> bytes:
        return checkpoint_path(out / "walk" / "das3r-lite" / "now" / "nerfstudio_models", STEPS - 1).read_bytes()

    def _result(self, kind: str, path: Path) -> None:
        if kind == "predict":
            predict(self.data, path, QUICK, overwrite=True)
        elif kind == "export":
            splat.export_splat(self.run / "config.yml", path)
        else:
            static_video.render_static(self.run / "config.yml", path)

    def attempt(self, kind: str, chance: random.Random, folder: Path) -> str:
        """Kill once and go on; returns where the kill struck."""
        seconds, writes = self.cost[kind]
        within_save = chance.random() < 1 / 3
        die_at = chance.randint(1, writes) if within_save else None
        path = folder / {"predict": "scene", "export": "splat.ply", "render": "static.mp4"}.get(kind, "first")
        old = kind in ("export", "render") and chance.random() < 0.5
        work: Callable[[], object] = partial(self._result, kind, path)
        if kind in ("train", "resume"):
            work = partial(self._train, path, **({"load_dir": self.half} if kind == "resume" else {}))
        while True:
            shutil.rmtree(path, ignore_errors=True)
            if old:
                path.write_bytes(b"old")
            after_s = MAX_SECONDS if within_save else chance.uniform(0, seconds)
            if killed(forked(work, folder, die_at), after_s):
                break
            seconds *= 0.8  # it was quicker than the undisturbed one
            if within_save and die_at is not None:
                die_at = max(1, die_at - 1)
        if old:
            assert content(path) in (content_of(b"old"), self.wanted[kind]), "neither the old result nor the new one"
        if kind in ("train", "resume"):
            self._go_on(kind, path, folder)
        else:
            finished(work, folder)
            assert content(path) == self.wanted[kind], f"{kind}: other bytes than undisturbed"
        left = list(left_over(folder))
        assert not left, f"{kind} left {left}"
        return "within a save" if within_save else "at a random moment"

    def _go_on(self, kind: str, first: Path, folder: Path) -> None:
        models = first / "walk" / "das3r-lite" / "now" / "nerfstudio_models"
        steps = checkpoint_steps(models)
        out = first
        if steps[:1] != [STEPS - 1]:
            start = {"load_dir": models} if steps else {"load_dir": self.half} if kind == "resume" else {}
            out = folder / "second" if steps else first
            finished(partial(self._train, out, **start), folder)
        else:
            # Killed after the last step, while the report was written: what is half written goes with the next file
            # that is written beside it.
            whole.write_text_whole(models.parent / "next.txt", "next")
        assert self._last(out) == self.wanted[kind], f"{kind}: other bytes than undisturbed"
        if out != first:
            shutil.rmtree(first)  # its half-written files go with it; a run that is resumed is not written to


def content_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(path: Path) -> Any:
    """Digests of all that a result holds, but for the seconds that a prediction took and the place it was given."""
    if path.is_file():
        return content_of(path.read_bytes())
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        if file.name == "predictor.json":
            record = json.loads(file.read_text(encoding="utf-8"))
            found[file.name] = {key: value for key, value in record.items() if key != "seconds"}
        elif file.is_file():
            found[str(file.relative_to(path))] = content_of(file.read_bytes())
    return found


def left_over(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith(".") and path.name.endswith((".part", ".old", ".lock"))
        temporary = path.parent.name == "temporary" and not (
            path.name.startswith("das3r-cores-") and not any(path.iterdir())
        )
        if hidden or temporary or path.name.startswith(whole.WRITING):
            yield str(path.relative_to(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    where: Counter[str] = Counter()
    place = tempfile.mkdtemp(prefix="soak-")  # not TemporaryDirectory, which every fork would remove at its end
    try:
        soak = Soak(Path(place))
        print(
            {kind: (round(s, 1), n) for kind, (s, n) in soak.cost.items()}, "seconds and writes undisturbed", flush=True
        )
        for number in range(options.kills):
            folder = Path(place) / f"attempt_{number}"
            folder.mkdir()
            kind = KINDS[number % len(KINDS)]
            struck = soak.attempt(kind, random.Random(1000 * options.seed + number), folder)
            where[kind] += 1
            where[struck] += 1
            print(f"{number + 1}/{options.kills} {kind}, killed {struck}: went on to the same bytes", flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(place)
    print(
        f"{options.kills} kills, {options.kills} good continuations in {time.monotonic() - begin:.0f} s: {dict(where)}"
    )


if __name__ == "__main__":
    main()
