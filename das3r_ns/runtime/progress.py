"""Progress bars of the predictors: one bar a stage, counted in the unit of the field (frames, pairs, steps)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
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


@dataclass
class _Record:
    """Seconds by stage, and how many of the running stages' went to stages inside them, the innermost last."""

    seconds: dict[str, float] = field(default_factory=dict)
    inside: list[float] = field(default_factory=list)


_record: ContextVar[_Record | None] = ContextVar("_record", default=None)


@contextmanager
def recorded_seconds() -> Iterator[dict[str, float]]:
    """Seconds that each stage took within the `with` block, by its description without numbers and without the seconds
    of stages inside it, and in `total`."""
    record, start = _Record(), perf_counter()
    token = _record.set(record)
    try:
        yield record.seconds
    finally:
        _record.reset(token)
        for name, seconds in record.seconds.items():
            record.seconds[name] = round(seconds, 2)
        record.seconds["total"] = round(perf_counter() - start, 2)


@contextmanager
def timed(description: str) -> Iterator[None]:
    """A stage without a bar: for what takes less than two seconds, and for what lies between the stages of a whole."""
    record = _record.get()
    if record is None:
        yield
        return
    start = perf_counter()
    record.inside.append(0.0)
    try:
        yield
    finally:
        seconds, inside = perf_counter() - start, record.inside.pop()
        if record.inside:
            record.inside[-1] += seconds
        name = " ".join(word for word in description.split() if not word.isdigit())
        record.seconds[name] = record.seconds.get(name, 0.0) + seconds - inside


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
    with timed(description), Progress(*columns, TextColumn("{task.fields[note]}"), console=CONSOLE) as progress:
        task = progress.add_task(description, total=total, note="")
        yield Stage(progress, task)
        if total is None:
            progress.update(task, total=1, completed=1)


def tracked(
    items: Sequence[Item] | Iterable[Item], description: str, total: int, unit: str = "frames"
) -> Iterator[Item]:
    """Go through `items` with a bar."""
    with stage(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()
