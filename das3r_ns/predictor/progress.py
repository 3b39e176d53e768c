"""Progress bars of the predictors: one bar a stage, counted in the unit of the field (frames, pairs, steps)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=CONSOLE) as progress:
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
