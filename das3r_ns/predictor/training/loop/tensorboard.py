"""TensorBoard, which only training needs: an optional package, imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


def summary_writer(folder: Path) -> SummaryWriter:
    """A writer of TensorBoard logs.

    Raises:
        ImportError: the package is missing; says which extra brings it.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "training writes TensorBoard logs, which need an extra package: pip install 'das3r-ns[train]'"
        ) from error
    return SummaryWriter(str(folder))
