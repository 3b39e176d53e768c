"""What a set of training pairs is: frames with truth, a list of pairs, and one way to say that a file is bad.

A set (`PairSource`) is indexed once, at the start, by looking at folders and small files; what cannot be used is left
out there and reported. What shows only when a file is opened raises `BadDataError` and is replaced by another pair
(`loading`). Either way the path is told once, with the reason, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from rich import get_console

from das3r_ns.video.images import image_size

UNKNOWN = 255
"""Label of a pixel of which nobody knows whether it moves."""


@dataclass(frozen=True)
class Frame:
    """One image and the ground truth about it, as its files hold it."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]
    """z-depth in world units; 0 or not finite where unknown."""
    dynamic: UInt8[np.ndarray, "h w"]
    """1 where something moved between this frame and the other one of its pair, 0 elsewhere, 255 unknown."""
    K: Float[np.ndarray, "3 3"]
    T_world_camera: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Problem:
    """Something that had to be left out."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadDataError(ValueError):
    """A file that cannot be used. Training goes on without it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.problem = Problem(str(path), reason)


def readable_size(image: Path) -> tuple[int, int]:
    """Height and width of an image. Raises BadDataError."""
    try:
        return image_size(image)
    except (OSError, ValueError) as error:
        raise BadDataError(image, f"cannot be read ({error})") from error


class NothingLeftError(ValueError):
    """A set of which nothing can be used. The message lists what was wrong."""

    def __init__(self, what: str, problems: Sequence[Problem]) -> None:
        shown = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        super().__init__(f"{what}{shown}{more}")


@dataclass(frozen=True)
class Pair:
    """Two frames of one sequence; `second` is `stride` frames after `first`."""

    sequence: int
    first: int
    second: int

    @property
    def stride(self) -> int:
        return self.second - self.first


@runtime_checkable
class PairSource(Protocol):
    """A set of sequences with truth."""

    @property
    def name(self) -> str:
        """For messages and the logs, such as `pointodyssey/train`."""
        ...

    @property
    def pairs(self) -> Sequence[Pair]:
        """What can be drawn."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """What was left out while indexing."""
        ...

    def image_size(self, pair: Pair) -> tuple[int, int]:
        """Height and width of the frames of a pair, without reading them whole.

        Raises:
            BadDataError: the first frame's image is missing or damaged.
        """
        ...

    def read(self, pair: Pair) -> tuple[Frame, Frame]:
        """Both frames of a pair, each labelled by what moved between the two.

        Raises:
            BadDataError: a file is missing, damaged or senseless.
        """
        ...


@dataclass
class ProblemLog:
    """Everything that was left out so far; each path is told once."""

    seen: dict[str, str] = field(default_factory=dict)
    """Path to reason."""
    announce: bool = True
    """Whether this process prints. One of several does."""
    _own: list[Problem] = field(default_factory=list)

    def add(self, problems: Iterable[Problem]) -> None:
        """Report what is new."""
        self._own.extend(self._tell(problems))

    def exchange(self, gather: Callable[[list[Problem]], Iterable[list[Problem]]]) -> None:
        """Tell the other processes what is new here, and learn what is new there.

        Args:
            gather: gives the lists of all processes for that of this one.
        """
        own, self._own = self._own, []
        for problems in gather(own):
            self._tell(problems)

    def _tell(self, problems: Iterable[Problem]) -> list[Problem]:
        new = []
        for problem in problems:
            if problem.path in self.seen:
                continue
            self.seen[problem.path] = problem.reason
            new.append(problem)
            if self.announce:
                get_console().print(f"left out: {problem}", style="yellow", markup=False, highlight=False)
        return new

    def __len__(self) -> int:
        return len(self.seen)
