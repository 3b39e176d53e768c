"""The one place that knows refiners by name. Nothing is imported before a refiner is built, and building one says at
once what is missing."""

from __future__ import annotations

from das3r_ns.predictor.masks.config import RefinerName
from das3r_ns.predictor.masks.refiners.base import Refiner
from das3r_ns.predictor.masks.refiners.choice import resolve_auto


def build_refiner(name: RefinerName) -> Refiner | None:
    """The refiner of that name; None for `none`.

    Raises:
        ImportError: it needs a package that is not installed; the message says which extra brings it.
    """
    name = resolve_auto(name)
    if name == "none":
        return None
    if name == "salience":
        from das3r_ns.predictor.masks.refiners.salience import SalienceRefiner

        return SalienceRefiner()
    from das3r_ns.predictor.masks.refiners.sam2 import Sam2Refiner

    return Sam2Refiner()
