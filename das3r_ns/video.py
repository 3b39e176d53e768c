"""A video file or a folder of pictures in, frames out."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Frames of one camera in order of time."""

    frames: UInt8[Tensor, "n h w 3"]
    """RGB."""
    fps: float
    """Frames per second of these frames (after every k-th was taken). Folders of pictures say 30 unless told."""
    names: tuple[str, ...]
    """One name a frame: the picture's file name, or `frame_00001` with the 1-based number."""
    source: Path | None = None
    """Where the frames came from; None for frames made in memory."""

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1], self.frames.shape[2]
