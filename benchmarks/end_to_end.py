"""From a clip to a saved model: seconds of every stage, with an older commit beside it in the same run.

    python benchmarks/end_to_end.py --data CLIP --baseline 242d3ff                     # ns-train das3r
    python benchmarks/end_to_end.py --data CLIP --baseline 242d3ff --command predict   # das3r predict
    python benchmarks/end_to_end.py --data CLIP --command predict --together 4         # four side by side

Each run is a fresh process, timed from the first instruction of the command line. `--caches` says what it finds: `cold`
no compiled code, as on a new machine; `warm` compiled code, nothing of the clip; `scene` the predicted scene as well
(training alone). Runs of the two versions take turns, for other work on the machine changes with time: of the columns,
the ratio is the one to look at, and that of processor time where the machine is shared.

What follows ` -- ` is given to the measured command, such as `-- --max-num-iterations 100`.

CLIP is a video or a folder of images. Of a folder, `--num-frames` takes so many: there and back where it has fewer.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from end_to_end_probe import STARTED

ROOT = Path(__file__).resolve().parents[1]
PROBE = Path(__file__).with_name("end_to_end_probe.py")
GIB = 2**30
COMPILED = ("NUMBA_CACHE_DIR", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Environment variables of the folders where compiled code is kept."""
Caches = Literal["cold", "warm", "scene"]


@dataclass
class Options:
    """What to measure."""

    data: Path
    """A video, or a folder of images."""
    baseline: str | None = None
    """Commit to compare with, or a folder that holds its das3r_ns and pyproject.toml (where there is no history)."""
    command: Literal["train", "predict"] = "train"
    """Ends with a saved checkpoint, or with a scene folder."""
    method: str = "das3r"
    """For `train`."""
    num_frames: int | None = None
    """Frames of a folder of images; all of them if not given."""
    caches: tuple[Caches, ...] = ("cold", "warm", "scene")
    """Runs of each version, `cold` first. Without it, compiled code is what `NUMBA_CACHE_DIR` and its like name."""
    repeats: int = 1
    """Rounds of `warm` and `scene`."""
    together: int = 0
    """So many predictions side by side, after the others; compared with as many `warm` ones in turn."""
    out: Path | None = None
    """JSON file of all that was measured, written after every run."""


@dataclass
class Measured:
    """One run."""

    version: str
    caches: str
    wall_s: float
    checkpoint_s: float | None
    """Until the last checkpoint was saved."""
    cpu_s: float
    """Of all threads, and of child processes."""
    peak_bytes: int
    gpu: str | None
    gpu_peak_bytes: int | None
    """What torch had reserved."""
    stages: dict[str, float]
    scene_stages: dict[str, float]
    """As the scene's own predictor.json has them."""


class Version:
    """One state of the code, the caches it fills, and more arguments of its command."""

    def __init__(self, name: str, code: Path, place: Path, arguments: list[str]) -> None:
        self.name, self.code, self.place, self.arguments = name, code, place, arguments
        self.place.mkdir()
        self._runs = 0
        self.fresh_caches: Path | None = None
        # Nerfstudio finds methods by the entry points of installed packages: this code's, whichever is installed.
        project = (code / "pyproject.toml").read_text(encoding="utf-8")
        info = self.place / "site" / "das3r_ns-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: das3r-ns\nVersion: 0\n", encoding="utf-8")
        groups = re.findall(r'^\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)', project, re.MULTILINE)
        entry_points = "".join(f"[{group}]\n{lines}" for group, lines in groups).replace('"', "")
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")

    def forget_compiled(self) -> None:
        """From now on, nothing is compiled."""
        self.fresh_caches = Path(tempfile.mkdtemp(prefix="compiled-", dir=self.place))

    def folder(self) -> Path:
        """A new working folder, in which no scene is cached."""
        self._runs += 1
        folder = self.place / f"run-{self._runs}"
        folder.mkdir()
        return folder

    def start(self, options: Options, data: Path, folder: Path, name: str = "run") -> subprocess.Popen[bytes]:
        """Start the command in `folder`."""
        if options.command == "train":
            words = ["ns-train", options.method, "--data", str(data), "--viewer.quit-on-train-completion", "True"]
        else:
            words = ["das3r", "predict", "--data", str(data), "--out", str(folder / f"scene-{name}")]
        paths = [str(self.place / "site"), str(self.code), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), STARTED: str(time.monotonic())}
        if self.fresh_caches is not None:
            environment |= {variable: str(self.fresh_caches / variable) for variable in COMPILED}
        with (folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, str(PROBE), str(folder / f"{name}.json"), *words, *self.arguments]
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def measure(self, options: Options, data: Path, caches: str, folder: Path) -> Measured:
        """Run the command to its end.

        Raises:
            SystemExit: it failed.
        """
        start = time.monotonic()
        process = self.start(options, data, folder)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        written = folder / "run.json"
        found: dict[str, Any] = (
            json.loads(written.read_text(encoding="utf-8")) if written.is_file() else {"checkpoint_s": None}
        )
        if process.returncode != 0:
            said = f"{self.name} failed ({process.returncode}):\n{(folder / 'run.log').read_text()[-3000:]}"
            if found["checkpoint_s"] is None:
                sys.exit(said)
            print(f"{said}\nWhat it took until the checkpoint was saved stands.")
        stages = {**found["stages"], "Python's end": wall - sum(found["stages"].values())}
        scene = next(folder.rglob("predictor.json"), None)
        recorded = {} if scene is None else json.loads(scene.read_text(encoding="utf-8"))["seconds"]
        return Measured(
            self.name, caches, wall, found["checkpoint_s"], used.ru_utime + used.ru_stime, used.ru_maxrss * 1024,
            found["gpu"], found["gpu_peak_bytes"], stages, {} if caches == "scene" else recorded,
        )  # fmt: skip

    def side_by_side(self, options: Options, data: Path) -> float:
        """Seconds that as many runs as `together` says take, all started at once."""
        folder, start = self.folder(), time.monotonic()
        running = [self.start(options, data, folder, f"run{i}") for i in range(options.together)]
        ended = [process.wait() for process in running]
        if any(ended):
            sys.exit(f"{self.name} failed; its output is in {folder}")
        return time.monotonic() - start


def main(options: Options, arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="das3r-end-to-end-") as temporary:
        place = Path(temporary)
        data = options.data.resolve()
        if data.is_dir() and options.num_frames is not None:
            data = there_and_back(data, options.num_frames, place / "images")
        versions = [Version("this", ROOT, place / "this", arguments)]
        if options.baseline is not None:
            code = _code_of(options.baseline, place)
            versions.append(Version(options.baseline, code, place / "baseline", arguments))
        done: list[Measured] = []
        side_by_side: dict[str, float] = {}
        folders: dict[str, Path] = {}
        later = [caches for caches in options.caches if caches != "cold"]
        rounds = ["cold"] * ("cold" in options.caches) + later * options.repeats
        print(f"{platform.node()}, {len(os.sched_getaffinity(0))} cores, {data.name}")
        for caches in rounds:
            for version in versions:
                if caches == "cold":
                    version.forget_compiled()
                if caches != "scene" or version.name not in folders:
                    folders[version.name] = version.folder()
                done.append(version.measure(options, data, caches, folders[version.name]))
                _write(options.out, done, side_by_side)
                print(f"{version.name}, {caches}: {done[-1].wall_s:.1f} s", flush=True)
        for version in versions if options.together else []:
            side_by_side[version.name] = version.side_by_side(options, data)
            _write(options.out, done, side_by_side)
        print("\n".join(_tables(done, side_by_side, options.together)))


def there_and_back(images: Path, count: int, folder: Path) -> Path:
    """A folder of `count` links to the images of another one: from the first to the last, back, and so on."""
    found = sorted(path for path in images.iterdir() if path.is_file())
    way = found + found[-2:0:-1]
    folder.mkdir()
    for i in range(count):
        source = way[i % len(way)]
        (folder / f"{i:05d}{source.suffix}").symlink_to(source)
    return folder


def _code_of(baseline: str, place: Path) -> Path:
    if Path(baseline).is_dir():
        return Path(baseline).resolve()
    folder = place / "baseline-code"
    folder.mkdir()
    archive = ["git", "-C", str(ROOT), "archive", baseline, "das3r_ns", "pyproject.toml"]
    packed = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], check=True, input=packed)
    return folder


def _write(out: Path | None, done: list[Measured], side_by_side: dict[str, float]) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found = {"runs": [asdict(run) for run in done], "side_by_side_s": side_by_side}
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _tables(done: list[Measured], side_by_side: dict[str, float], together: int) -> Iterable[str]:
    """Both tables: of runs, and of their stages."""
    best: dict[tuple[str, str], Measured] = {}
    for run in done:
        key = run.version, run.caches
        best[key] = min(best.get(key, run), run, key=lambda run: run.wall_s)
    runs = list(best.values())
    base = next((run.version for run in runs if run.version != "this"), None)
    yield from (
        "| version | caches | wall, s | to the checkpoint, s | CPU, s | of its wall | of its CPU | GiB | GPU GiB |",
    )
    yield "|---" * 9 + "|"
    for run in runs:
        other = best.get((base, run.caches)) if base is not None else None
        ratios = (run.wall_s / other.wall_s, run.cpu_s / other.cpu_s) if other is not None else (1.0, 1.0)
        saved = "" if run.checkpoint_s is None else f"{run.checkpoint_s:.1f}"
        gpu = "" if run.gpu_peak_bytes is None else f"{run.gpu_peak_bytes / GIB:.2f}"
        yield (
            f"| {run.version} | {run.caches} | {run.wall_s:.1f} | {saved} | {run.cpu_s:.1f} | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} | {run.peak_bytes / GIB:.2f} | {gpu} |"
        )
    yield ""
    for prefix, stages_of in (("", lambda run: run.stages), ("scene: ", lambda run: run.scene_stages)):
        names = list(dict.fromkeys(name for run in runs for name in stages_of(run)))
        if not prefix:
            yield "| stage, s | " + " | ".join(f"{run.version}, {run.caches}" for run in runs) + " |"
            yield "|---" * (1 + len(runs)) + "|"
        for name in names:
            cells = (f"{stages_of(run)[name]:.2f}" if name in stages_of(run) else "" for run in runs)
            yield f"| {prefix}{name} | " + " | ".join(cells) + " |"
    for version, seconds in side_by_side.items():
        alone = best.get((version, "warm"))
        gain = "" if alone is None else f", {together * alone.wall_s / seconds:.2f} times the throughput of one by one"
        yield f"\n{together} side by side, {version}: {seconds:.1f} s{gain}"


if __name__ == "__main__":
    own, _, more = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    main(tyro.cli(Options, args=shlex.split(own)), shlex.split(more))
