# ruff: noqa: E402, E501  (the tests of other rooms are put on the path first; one command a line)
"""Let the disk be full at each write of each command.

    python tests/soak/full_disk.py                      # once at each kind of write
    python tests/soak/full_disk.py --all                # at every write
    python tests/soak/full_disk.py --commands export-ply edit

Every attempt is a fork of this process in which one write and all that come after it fail with ENOSPC, halfway where it
writes: opening, writing, moving and flushing of files, and making of folders, all of them in the attempt's own folder,
the temporary one included. (Of a training one write fails alone: somebody made room.) The result that was there before
must still be there to the byte, nothing half written may lie beside it, and the command must end in one line and not in
success; or go on, and make a whole result (training goes on after a checkpoint that found no room). What libraries
write outside Python is in `tests/files/test_full_disk.py`, with a limit of the system.

With all commands, the list of writes there is looked through as well: each of them was met, or `LEFT_OUT` says why not.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "files")]

import numpy as np
import torch
from kills import IMPORTED, content, left_over, train_for, write_dataset
from test_full_disk import LEFT_OUT, WRITES
from tiny_run import scene_from_truth

import das3r_ns
from das3r_ns import cli
from das3r_ns.datasets import read_truth_folder
from das3r_ns.evaluation import evaluate, unpack
from das3r_ns.evaluation.batch import command as batch_command
from das3r_ns.evaluation.batch.worker import ClipJob, run_clip
from das3r_ns.evaluation.bench.prepared import prepare
from das3r_ns.evaluation.bench.table import BenchTable, Row
from das3r_ns.export import command as _export
from das3r_ns.files import whole
from das3r_ns.render import splat, static_video
from das3r_ns.report import command as _report
from das3r_ns.runtime.failures import sentence_of
from das3r_ns.scene import Edit, EditStore, read_scene
from das3r_ns.synthetic import SyntheticConfig

_ = (IMPORTED, splat, static_video, evaluate, _export, _report)  # what the commands import when they need it

SENTENCE = re.compile(r"no room for|MiB left|disk is full|No space left on device")
PACKAGE = str(Path(das3r_ns.__file__).parent) + os.sep
OWN_FILES = ("log.txt", "writes.json")
"""Of an attempt, in its folder."""
WHOLE_FILE = PACKAGE + os.path.join("files", "whole.py")


class Disk:
    """Counts the writes of this process into a folder, and lets one of them find no room."""

    def __init__(self, folder: Path, full_at: int | None, stays_full: bool) -> None:
        self.folder, self.full_at, self.stays_full = str(folder.absolute()) + os.sep, full_at, stays_full
        self.seen: list[tuple[str, list[str]]] = []
        """What was written at each place (the operation, and the file's name without its numbers), and functions of the
        package under way."""
        opened, created, made, moved, flushed = io.open, os.open, os.mkdir, os.replace, os.fsync

        def open_file(file: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
            opener = named.get("opener")  # which calls os.open
            writes = isinstance(file, (str, os.PathLike)) and opener is None and set(mode) & set("wax+")
            full = bool(writes) and self.is_full("write", file)
            stream = opened(file, mode, *others, **named)
            return _Full(stream) if full else stream

        def open_number(path: Any, flags: int, *others: Any, **named: Any) -> int:
            nameless = getattr(os, "O_TMPFILE", -1)  # it has the bit of folders as well
            new = flags & nameless == nameless or (flags & os.O_CREAT and not os.path.lexists(path))
            if new and self.is_full("create", path):
                raise _no_space(path)
            return created(path, flags, *others, **named)

        def make(path: Any, *others: Any, **named: Any) -> None:
            if not os.path.lexists(path) and self.is_full("folder", path):
                raise _no_space(path)
            made(path, *others, **named)

        def move(source: Any, target: Any, **named: Any) -> None:
            if self.is_full("move", target):
                raise _no_space(target)
            moved(source, target, **named)

        def flush(number: int) -> None:
            name = os.readlink(f"/proc/self/fd/{number}")
            if os.path.isfile(name) and self.is_full("flush", name):
                os.ftruncate(number, os.fstat(number).st_size // 2)
                raise _no_space(name)
            flushed(number)

        io.open = builtins.open = open_file  # type: ignore[assignment]
        os.open, os.mkdir, os.replace, os.fsync = open_number, make, move, flush  # type: ignore[assignment]

    def is_full(self, operation: str, path: Any) -> bool:
        name = os.path.abspath(os.fsdecode(path))
        if not (name + os.sep).startswith(self.folder) or os.path.basename(name) in OWN_FILES:
            return False
        kind = re.sub(r"[0-9a-f]{12}|writing-\w+|\.\w{8}\.(part|old)|\d", "#", os.path.basename(name))
        self.seen.append((f"{operation} {kind}", list(_functions_under_way())))
        if self.full_at is None:
            return False
        # What was moved aside may come back.
        stays = self.stays_full and operation != "move" and len(self.seen) > self.full_at
        return len(self.seen) == self.full_at or stays


class _Full:
    """A file of which the first half of what is written finds room."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, data: Any) -> int:
        self._stream.write(data[: len(data) // 2])
        raise _no_space(None)

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("what writes to the number itself is not seen")


def _no_space(path: Any) -> OSError:
    name = () if path is None else (os.fsdecode(path),)
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *name)


def _functions_under_way() -> Iterator[str]:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            yield f"{file.removeprefix(PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back


@dataclass(frozen=True)
class Command:
    """A command, the result that it makes, and how it may end."""

    name: str
    work: Callable[[Path], object]
    """Makes the result at a path."""
    result: str
    """Its name."""
    arguments: Callable[[Path], list[str]] | None = None
    """Of `das3r`, in the place of `work`."""
    several: bool = False
    """The result is several files, each of them the old one or the new one."""
    goes_on: Callable[[Path], bool] | None = None
    """Whether a result is whole, where that is told otherwise than by comparing it with another one."""


def attempt(command: Command, folder: Path, before: Path | None, full_at: int | None) -> tuple[int, str]:
    """Run a command in a fork.

    Returns:
        Exit status, and what it said.
    """
    folder.mkdir(exist_ok=True)
    path = folder / command.result
    if before is not None and before.is_dir():
        if command.name != "train":
            shutil.copytree(before, path)
    elif before is not None:
        shutil.copy2(before, path)
    number = os.fork()
    if number == 0:
        _in_fork(command, folder, path, full_at)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return status, (folder / "log.txt").read_text(encoding="utf-8", errors="replace")


def _in_fork(command: Command, folder: Path, path: Path, full_at: int | None) -> None:
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        (folder / "temporary").mkdir()
        tempfile.tempdir = str(folder / "temporary")
        whole.CLAIM_SECONDS = 0.0
        os.chdir(folder)
        disk = Disk(folder, full_at, command.name != "train")
        try:
            if command.arguments is not None:
                sys.argv = ["das3r", *command.arguments(path)]
                cli.main()
            else:
                command.work(path)
        except SystemExit as error:
            if error.code:
                print(error.code if isinstance(error.code, str) else "", file=sys.stderr)
            code = 1 if isinstance(error.code, str) else int(error.code or 0)
        except Exception as error:  # as nerfstudio's commands end with our hook
            print(f"das3r {command.name}: {sentence_of(error)}", file=sys.stderr)
        else:
            code = 0
        full_at = disk.full_at = None
        (folder / "writes.json").write_text(json.dumps(disk.seen), encoding="utf-8")
        # What a process removes when it ends.
        import atexit

        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def try_full(command: Command, folder: Path, before: Path, whole_one: Path, full_at: int, what: str) -> str:
    """Let one write find no room.

    Args:
        whole_one: the result where there is room.
        what: the write is, for messages.

    Returns:
        How the command ended.

    Raises:
        AssertionError: something was lost, left, or not told.
    """
    old = content(before)
    code, log = attempt(command, folder, before, full_at)
    where = f"{command.name}, no room to {what} (write {full_at})"
    path = folder / command.result
    assert code != 70, f"{where}: {log[-3000:]}"
    left = list(left_over(folder))
    assert not left, f"{where} left {left}"
    if code == 0:  # a probe of how locks can be had, or a file that helps and is not needed
        is_whole = command.goes_on or (lambda path: content(path) == content(whole_one))
        assert is_whole(path), f"{where}: success, and the result is not whole: {log[-2000:]}"
        return "went on to a whole result" + (", and said so" if SENTENCE.search(log) else "")
    if command.name != "batch":  # whose clips have logs of their own for that
        assert "Traceback" not in log, f"{where}: {log[-3000:]}"
    last = log.strip().splitlines()[-1]
    assert last.startswith("das3r "), f"{where}: does not end in one line: {log[-2000:]}"
    assert SENTENCE.search(last), f"{where}: does not say that there is no room: {last}"
    if command.name == "train":  # a run of its own, in a folder with its time
        return "ended in a line"
    now = content(path)
    if command.several:
        # What a batch noted of a stage that it repeats, and a run that it trains anew, are gone before.
        lost = {name for name in old.keys() - now.keys() if not re.match(r"walk/(results|runs)/", name)}
        assert not lost, f"{where}: lost {sorted(lost)}"
    else:
        assert now == old, f"{where}: the old result is not there any more"
    return "ended in a line"


class Made:
    """What the commands work on: a scene, a run that was trained on it, images with cameras, ground truth."""

    def __init__(self, folder: Path, with_run: bool) -> None:
        self.scene = scene_from_truth(folder / "walk", SyntheticConfig(num_frames=4, height=48, width=64))
        self.data = write_dataset(folder / "data")
        self.truth = self._truth(folder / "truth")
        self.archive = Path(shutil.make_archive(str(folder / "truth_archive"), "zip", self.truth))
        self.run = folder / "run" / "walk" / "das3r-lite" / "now"
        if with_run:
            training = Command("train", partial(train_for, self.scene), "run")
            code, log = attempt(training, folder, None, None)
            assert code == 0, log[-3000:]

    def _truth(self, folder: Path) -> Path:
        for name, source in (("images", "images"), ("clean", "images"), ("dynamic_masks", "masks")):
            shutil.copytree(self.scene / source, folder / name)
        scene = read_scene(self.scene)
        np.savetxt(folder / "T_world_camera.txt", scene.T_world_camera.reshape(-1, 16).numpy())
        np.savetxt(folder / "K.txt", scene.K[0].reshape(1, 9).numpy())
        return folder

    def commands(self) -> dict[str, Command]:
        """By name."""
        config = str(self.run / "config.yml")

        def cli_command(name: str, result: str, *arguments: str, several: bool = False, flag: str = "--out") -> Command:
            return Command(name, print, result, lambda path: [name.split(":")[0], *arguments, flag, str(path)], several)

        export = ("--data", str(self.scene), "--overwrite", "--for")
        found = [
            cli_command("predict", "scene", "--data", str(self.data), "--overwrite", "--geometric.masks.refiner", "none"),
            Command("train", partial(train_for, self.scene), "run", goes_on=partial(_trained_as, self.run)),
            *(
                cli_command(f"export:{ending}", f"splat.{ending}", "--load-config", config)
                for ending in ("ply", "compressed.ply", "spz")
            ),
            *(
                cli_command(f"export:{target}", target, *export, target, *more)
                for target, more in (
                    ("brush", ()), ("lichtfeld", ("--invert-masks",)), ("postshot", ()), ("colmap", ()),
                    ("nerfstudio", ()), ("tum", ()),
                )
            ),
            cli_command("render-static", "static.mp4", "--load-config", config),
            cli_command(
                "eval", "evaluation", "--load-config", config, "--truth", str(self.truth), "--no-refine-test-poses",
                several=True,
            ),
            cli_command("report:scene", "report.html", str(self.scene)),
            cli_command("report:run", "report.html", str(self.run)),
            Command("edit:add", _edit, "edited"),
            Command("edit:undo", partial(_edit, undo=True), "edited"),
            Command("batch", partial(_batch, self.scene), "clips_das3r", several=True),
            Command("bench:table", _bench_table, "tables", several=True),
            Command("bench:prepare", self._prepare, "prepared", ),
            Command("download:unpack", lambda path: unpack.unpack([self.archive], path), "unpacked", several=True),
        ]  # fmt: skip
        return {command.name: command for command in found}

    def _prepare(self, path: Path) -> None:
        prepare(read_truth_folder(self.truth), [0, 2] if path.exists() else [0, 1, 2], 64, path)

    def before(self, command: Command, folder: Path) -> Path:
        """A result of the command, in a folder of its own, as it was before the disk was full."""
        path = folder / command.result
        if command.name.startswith("edit:"):
            folder.mkdir()
            shutil.copytree(self.scene, path)
            _edit(path)
            return path
        code, log = attempt(command, folder, None, None)
        assert code == 0, f"{command.name} without a full disk: {log[-3000:]}"
        shutil.rmtree(folder / "temporary")
        if command.name == "predict":  # edits that the next prediction is to take over
            _edit(path)
        return path


def _edit(scene: Path, undo: bool = False) -> None:
    """An edit of two frames, or the last one taken back."""
    files = read_scene(scene)
    layer = np.zeros(files.image_size, bool)
    layer[8:24, 8:24] = True
    store = EditStore(scene, files.names, files.times_s)
    try:
        if undo:
            store.undo()
        else:
            store.add(Edit("", "brush", True, (), frame=0), {0: layer, 1: layer})
    finally:
        store.close()


def _trained_as(run: Path, path: Path) -> bool:
    checkpoint = sorted((path / "walk" / "das3r-lite" / "now" / "nerfstudio_models").iterdir())[-1]
    return checkpoint.read_bytes() == (run / "nerfstudio_models" / checkpoint.name).read_bytes()


def _batch(scene: Path, path: Path) -> None:
    """Every stage of a clip, in this process. The splat of the clip takes as many steps as a test has time for."""
    clips = path.parent / "clips"
    if not clips.exists():
        shutil.copytree(scene, clips / "walk")

    def here(jobs: list[ClipJob], at_a_time: int, done: Callable[[ClipJob], None], worker: str) -> None:
        del at_a_time, worker
        for job in jobs:
            run_clip(job)
            done(job)

    batch_command.run_here = here  # type: ignore[assignment]
    batch_command.batch(clips, path, method="das3r-lite", steps=8)


def _bench_table(path: Path) -> None:
    masks = {
        "j_mean": 0.5, "j_mean_by_threshold": {"0.5": 0.5},
        "calibration": {"pixels": [10] * 10, "moving": list(range(10)), "probability": [1.0] * 10},
    }  # fmt: skip
    BenchTable("x", (), [Row("clip", {"masks": {"values": masks}}), Row("failed", {})]).write(path)


def kinds_of_writes(seen: list[tuple[str, list[str]]]) -> Iterator[tuple[int, str]]:
    """Numbers of the first write of each kind: of one name, by one way through the package."""
    known = set()
    for number, (what, functions) in enumerate(seen, start=1):
        kind = (what, tuple(functions))
        if kind not in known:
            known.add(kind)
            yield number, what


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every write, not only the first of each kind")
    parser.add_argument("--list", action="store_true", help="see which writes are met, and let none find no room")
    parser.add_argument("--commands", nargs="+", help="some of them; all when left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin, total, met, failed = time.monotonic(), 0, set(), []
    place = Path(tempfile.mkdtemp(prefix="full-disk-"))
    try:
        needs_run = {
            "train",
            "export:ply",
            "export:compressed.ply",
            "export:spz",
            "render-static",
            "eval",
            "report:run",
        }
        made = Made(place, options.commands is None or bool(needs_run & set(options.commands)))
        commands = made.commands()
        for name in options.commands or commands:
            command = commands[name]
            before = made.before(command, place / "before")
            attempt(command, place / "whole", before, None)
            seen = json.loads((place / "whole" / "writes.json").read_text(encoding="utf-8"))
            met |= {function for _, functions in seen for function in functions}
            ended: dict[str, int] = {}
            chosen = (
                list(enumerate((what for what, _ in seen), start=1)) if options.all else list(kinds_of_writes(seen))
            )
            for number, what in () if options.list else chosen:
                try:
                    did = try_full(command, place / "attempt", before, place / "whole" / command.result, number, what)
                except AssertionError as error:
                    did = "FAILED"
                    failed.append(str(error))
                    print(f"FAILED {error}", flush=True)
                ended[did] = ended.get(did, 0) + 1
                total += 1
                if did != "ended in a line":
                    print(f"{name}: no room to {what} ({number} of {len(seen)}): {did}", flush=True)
                shutil.rmtree(place / "attempt")
            print(f"{name}: no room at {len(chosen)} of {len(seen)} writes: {ended}", flush=True)
            shutil.rmtree(place / "before")
            shutil.rmtree(place / "whole")
        if options.commands is None:
            wanted = {(file, function) for file, function, _ in WRITES} - LEFT_OUT.keys()
            missed = sorted(f"{file}:{function}" for file, function in wanted if f"{file}:{function}" not in met)
            assert not missed, f"no command came to these writes, and LEFT_OUT does not say why: {missed}"
            print(f"{len(wanted)} functions that write were met, {len(LEFT_OUT)} are left out for a reason")
    finally:
        shutil.rmtree(place)
    if failed:
        sys.exit(f"{total} full disks, and {len(failed)} times something was lost, left or not told")
    print(f"{total} full disks, {total} times nothing lost, in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
