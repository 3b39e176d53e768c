"""What a run needs to go on after an interruption: one file, written whole, read without running code.

It holds what learns, not the frozen rest: that lies in `start/` in hub layout, written when the run began, so that a
resume needs neither the hub nor the file that the run started from.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from das3r_ns.files.whole import whole_file

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps."""

    step: int
    """Steps that are done."""
    order: dict[str, Any]
    """The plan of the data (`Order.as_record`)."""
    learned: dict[str, Tensor]
    """Parameters that learn, by name."""
    average: dict[str, Tensor] | None
    """Their running average, if it is on."""
    optimizer: dict[str, Any]
    problems: dict[str, str]
    """What was left out so far and why."""
    best_j: float
    """Best validation J so far; -1 before the first."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        DiskFullError: there is no room; the checkpoint that was there is still there.
    """
    with whole_file(path, what="the checkpoint") as part:
        torch.save({"format": FORMAT, **vars(checkpoint)}, part)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        ValueError: the file is damaged or of another release.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found = stored.pop("format")
        if found != FORMAT:
            raise ValueError(f"it has format {found}, this release reads {FORMAT}")
        return Checkpoint(**stored)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be resumed from ({error}). Delete its folder, or give another --out without --resume."
        ) from error


def check_resumable(
    checkpoint: Checkpoint, order: dict[str, Any], learning: dict[str, nn.Parameter], path: Path
) -> None:
    """Refuse a resume that would not be the same run.

    Raises:
        ValueError: the data, their order or the learning parts differ; the message says how.
    """
    different = [
        f"{name}: {checkpoint.order.get(name)} then, {value} now"
        for name, value in order.items()
        if checkpoint.order.get(name) != value
    ]
    if different:
        raise ValueError(
            f"{path} belongs to a run with other data ({'; '.join(different)}). A resumed run needs the same sets, "
            "seed and pairs per step (batch size x processes x accumulate), or it would not see what is left of the "
            "epoch."
        )
    if checkpoint.learned.keys() != learning.keys():
        raise ValueError(
            f"{path} was trained with another --train, --loss or --network: other parameters learned then."
        )


def restore(checkpoint: Checkpoint, learning: dict[str, nn.Parameter]) -> None:
    """Put the learned parameters back."""
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter.copy_(checkpoint.learned[name])
