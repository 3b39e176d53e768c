"""`das3r prepare`: what a training set needs before the first step. Parallel, and an interrupted run goes on.

`pointodyssey` adds the dynamic masks that the set lacks; `synthetic` renders a set of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import get_console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from das3r_ns.predictor.training.data.labelling import LabelReport, LabelSettings, frame_numbers, label_sequence
from das3r_ns.predictor.training.data.pointodyssey import sequence_folders
from das3r_ns.predictor.training.data.sources import NothingLeftError, ProblemLog
from das3r_ns.predictor.training.data.synthetic_set import SyntheticSet, make_training_clip

_counter: Synchronized[int] | None = None
"""In a worker process: the units done by all of them."""


@dataclass
class PointOdysseyLabels:
    """Label what moves in PointOdyssey, frame by frame, from its 3-D tracks. Writes a folder `dynamic_masks` into
    each sequence, about 20 KB a frame."""

    root: tyro.conf.Positional[Path]
    """The unpacked set, or one split of it."""
    max_stride: int = 9
    """Label each frame against its neighbours up to this distance in time, at most 12. Training may use less."""
    motion_threshold: float = 0.005
    """What moves less than this between two frames is static, in units of the scene (PointOdyssey's are metres).
    Lower than 0.004 takes the rounding of the set's half-precision files for motion; 0 is the published rule."""
    jobs: int = 0
    """Processes. 0 takes one for each core."""


Task = (
    Annotated[PointOdysseyLabels, tyro.conf.subcommand(name="pointodyssey")]
    | Annotated[SyntheticSet, tyro.conf.subcommand(name="synthetic")]
)


def prepare(task: Annotated[Task, tyro.conf.arg(name="")]) -> None:
    """Make what a training set lacks."""
    if isinstance(task, SyntheticSet):
        make_synthetic_set(task)
    else:
        label_pointodyssey(task)


def label_pointodyssey(task: PointOdysseyLabels) -> None:
    """Label all sequences; what had to be left out is told at the end.

    Raises:
        FileNotFoundError: there is no sequence.
        NothingLeftError: not one frame could be labelled.
    """
    settings = LabelSettings(task.max_stride, task.motion_threshold)
    folders = sequence_folders(task.root)
    total = sum(len(frame_numbers(folder)) for folder in folders)
    calls = [(_label, (folder, settings)) for folder in folders]
    reports: list[LabelReport] = _in_processes(calls, task.jobs, f"Labelling {len(folders)} sequences (frames)", total)
    problems = [problem for report in reports for problem in report.problems]
    log = ProblemLog()
    log.add(problems)
    frames = sum(report.frames for report in reports)
    if not frames:
        raise NothingLeftError(f"no frame of {task.root} could be labelled:", problems)
    get_console().print(f"{frames} of {total} frames labelled; {len(log)} items left out")


def make_synthetic_set(task: SyntheticSet) -> None:
    """Render the clips that are not there yet.

    Raises:
        NothingLeftError: a clip could not be rendered.
    """
    jobs = [(split, number) for split, count in task.counts().items() for number in range(count)]
    calls = [(_render, (task, split, number)) for split, number in jobs]
    _in_processes(calls, task.jobs, f"Rendering into {task.out} (clips)", len(jobs))


def _in_processes(
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]], jobs: int, what: str, total: int
) -> list[Any]:
    """Run calls in processes with one bar over what they count; results in their order."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    workers = min(jobs or os.cpu_count() or 1, len(calls))
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=get_console()) as progress,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(counter,)) as pool,
    ):
        bar = progress.add_task(what, total=total)
        futures: list[Future[Any]] = [pool.submit(function, *arguments) for function, arguments in calls]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.5)
            progress.update(bar, completed=counter.value)
            for future in finished:
                if future.exception() is not None:
                    pool.shutdown(cancel_futures=True)
                    raise future.exception() or RuntimeError(what)
        return [future.result() for future in futures]


def _begin(counter: Synchronized[int]) -> None:
    import cv2
    import torch

    global _counter
    _counter = counter
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _advance() -> None:
    assert _counter is not None
    with _counter.get_lock():
        _counter.value += 1


def _label(folder: Path, settings: LabelSettings) -> LabelReport:
    try:
        return label_sequence(folder, settings, _advance)
    except OSError as error:
        raise OSError(f"{folder}: {error}") from error


def _render(task: SyntheticSet, split: str, number: int) -> None:
    make_training_clip(task, split, number)
    _advance()
