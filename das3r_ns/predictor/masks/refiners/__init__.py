"""Optional refiners: what an object looks like, where motion alone does not say where it ends. Each is an extra.

In: `dynamic_prob` of a clip from motion, its pictures and its flow. Out: a better `dynamic_prob`. One file each;
nothing is imported before a refiner is built, and building one says at once what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames

RefinerName = Literal["auto", "none", "salience", "sam2"]
"""`auto`: salience where its extra is installed, else none."""


@runtime_checkable
class Refiner(Protocol):
    """Better dynamic maps of a whole clip."""

    def __call__(
        self,
        dynamic_prob: Float32[np.ndarray, "n h w"],
        picture: Callable[[int], UInt8[np.ndarray, "H W 3"]],
        flow: FlowBetweenFrames,
    ) -> Float32[np.ndarray, "n h w"]:
        """`picture` gives an RGB frame of any resolution; `flow` is at the resolution of the maps."""
        ...


def settled(name: RefinerName) -> RefinerName:
    """What `auto` means here and now; any other name as it is."""
    if name != "auto":
        return name
    from das3r_ns.predictor.masks.refiners.salience import find_weights

    try:
        find_weights()
    except ImportError:
        return "none"
    return "salience"


def build_refiner(name: RefinerName) -> Refiner | None:
    """The refiner of that name; None for `none`.

    Raises:
        ImportError: it needs a package that is not installed; the message says which extra brings it.
    """
    name = settled(name)
    if name == "none":
        return None
    if name == "salience":
        from das3r_ns.predictor.masks.refiners.salience import SalienceRefiner

        return SalienceRefiner()
    from das3r_ns.predictor.masks.refiners.sam2 import Sam2Refiner

    return Sam2Refiner()
