"""What a prompt is, and what answers one: the one interface for words, boxes and clicks.

`--masks-prompt` asks with words, the SAM 2 refiner with a box and a click on what moves, `das3r edit` with a click.
Places are shares of an image's width and height, so that they mean the same at any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8


@dataclass(frozen=True)
class Words:
    """All objects of a class: "person", "white dog"."""

    text: str


@dataclass(frozen=True)
class Box:
    """A rectangle around one object."""

    left: float
    top: float
    right: float
    bottom: float

    def in_pixels(self, height: int, width: int) -> Float32[np.ndarray, "4"]:
        """Left, top, right, bottom."""
        return np.array([self.left * width, self.top * height, self.right * width, self.bottom * height], np.float32)


@dataclass(frozen=True)
class Click:
    """A place on one object, or beside it."""

    x: float
    y: float
    inside: bool = True
    """False: the place does not belong to the object."""

    def in_pixels(self, height: int, width: int) -> Float32[np.ndarray, "2"]:
        """u, v; the centre of the first pixel is at (0.5, 0.5)."""
        return np.array([self.x * width, self.y * height], np.float32)


@dataclass(frozen=True)
class Pointed:
    """One object that a box, clicks or both point at."""

    box: Box | None = None
    clicks: tuple[Click, ...] = ()

    def __post_init__(self) -> None:
        if self.box is None and not any(click.inside for click in self.clicks):
            raise ValueError("an object is pointed at by a box or by at least one click on it")


Prompt: TypeAlias = Words | Pointed


@dataclass(frozen=True)
class Instance:
    """One object in one image."""

    mask: Bool[np.ndarray, "h w"]
    score: float
    """How sure whoever found it is, 0 to 1."""
    label: str = ""
    """The words that asked for it; empty for an object that was pointed at."""


@runtime_checkable
class Segmenter(Protocol):
    """Finds what prompts ask for in an image."""

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]) -> list[Instance]:
        """Words give any number of instances, in any order; each object that is pointed at gives one, in the order of
        the prompts, after those of the words."""
        ...
