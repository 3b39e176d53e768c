"""What a case of the corpus is. `corpus` has them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One input."""

    prepare: Callable[[Path], Read]
    """Writes it into a folder, whose file `executed` would be written by the code in it; returns what reads it."""
    message: str
    """Regular expression that the error's words must match."""


CASES: dict[str, Case] = {}


def add(kind: str, name: str, prepare: Callable[[Path], Read], message: str) -> None:
    assert f"{kind}: {name}" not in CASES
    CASES[f"{kind}: {name}"] = Case(prepare, message)


def file_case(kind: str, name: str, file: str, content: bytes, read: Callable[[Path], object], message: str) -> None:
    """A case that is one file."""

    def prepare(folder: Path) -> Read:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return lambda: read(path)

    add(kind, name, prepare, message)


class Runs:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)
