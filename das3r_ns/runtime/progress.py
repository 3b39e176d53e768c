"""Progress bars of the predictors: one bar a stage, counted in the unit of the field (frames, pairs, steps)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

CONSOLE = Console(width=120)
"""Where the predictors print. As wide as nerfstudio's."""


_seconds: ContextVar[dict[str, float] | None] = ContextVar("_seconds", default=None)


@contextmanager
def recorded_seconds() -> Iterator[dict[str, float]]:
    """Seconds that each stage took within the `with` block, by its description without numbers, and in `total`."""
    seconds: dict[str, float] = {}
    token, start = _seconds.set(seconds), perf_counter()
    try:
        yield seconds
    finally:
        _seconds.reset(token)
        seconds["total"] = round(perf_counter() - start, 2)


def _record(description: str, seconds: float) -> None:
    records = _seconds.get()
    if records is not None:
        name = " ".join(word for word in description.split() if not word.isdigit())
        records[name] = round(records.get(name, 0.0) + seconds, 2)


class Stage:
    """One running bar. `advance` moves it, `note` shows the number that tells success beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)


@contextmanager
def stage(description: str, total: int | None, unit: str = "frames") -> Iterator[Stage]:
    """A bar for the time of a `with` block. `total` None is work of unknown length."""
    count = (MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()) if total is not None else ()
    columns: tuple[Any, ...] = (TextColumn("[bold]{task.description}"), BarColumn(), *count, TimeElapsedColumn())
    start = perf_counter()
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=CONSOLE) as progress:
        task = progress.add_task(description, total=total, note="")
        yield Stage(progress, task)
        if total is None:
            progress.update(task, total=1, completed=1)
    _record(description, perf_counter() - start)


def tracked(
    items: Sequence[Item] | Iterable[Item], description: str, total: int, unit: str = "frames"
) -> Iterator[Item]:
    """Go through `items` with a bar."""
    with stage(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()
