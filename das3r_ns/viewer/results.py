"""What the panel's buttons make of the run that is open: static video, PLY, report. Training may go on meanwhile."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from das3r_ns.render.splat import write_splat
from das3r_ns.render.static_video import write_static_video
from das3r_ns.report.command import write_report

FOLDER = "viewer"
"""Of the run, for what the buttons write: what the user's own commands wrote there is not touched."""
MAX_DOWNLOAD_BYTES = 256 << 20
"""Larger files stay on the machine that trains: they would have to fit the browser's memory."""


def static_video(pipeline: Any, run: Path, lock: AbstractContextManager[Any]) -> Path:
    """Write the static video beside the input."""
    return write_static_video(pipeline, run / FOLDER / "static.mp4", lock=lock).path


def splat(pipeline: Any, run: Path, lock: AbstractContextManager[Any]) -> Path:
    """Write the PLY, cut where the slider stands."""
    from das3r_ns.runs.loading import LoadedRun  # it asks nerfstudio for all methods, which have yet to be complete

    with lock:
        model = snapshot(pipeline.model)
    loaded = LoadedRun(run / "config.yml", SimpleNamespace(), SimpleNamespace(model=model), run, 0)  # type: ignore[arg-type]
    return write_splat(loaded, run / FOLDER / "splat.ply")


def report(pipeline: Any, run: Path, lock: AbstractContextManager[Any]) -> Path:
    """Write the report of the run as it stands."""
    return write_report(run / FOLDER / "report.html", pipeline=pipeline, run=run, lock=lock)


def snapshot(model: Any) -> Any:
    """A model with copies of the Gaussians as they are now; everything else is shared."""
    still = copy.copy(model)
    still._modules = dict(model._modules)
    still._modules["gauss_params"] = nn.ParameterDict(
        {name: nn.Parameter(value.detach().clone(), False) for name, value in model.gauss_params.items()}
    )
    return still


def no_lock() -> AbstractContextManager[Any]:
    """For viewers of runs that nothing trains."""
    return nullcontext()
