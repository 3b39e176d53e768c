"""Which frames of a clip are read: settings alone, so that help and saved runs import nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from das3r_ns.files.saved_config import SavedConfig

FRAMES_OF_AUTO = 150
"""What `max_frames` "auto" means to who does not look at the motion."""
MIN_SIDE = 32
"""Pixels. In smaller images there are no features to follow."""


@dataclass
class VideoConfig(SavedConfig):
    """Which frames of a video or of a folder of images are read, and how large."""

    fps: float | None = None
    """Frames per second to read. None reads all; a value above the video's own rate changes nothing."""
    every: int = 1
    """Read every k-th of the frames that `fps` leaves. 1 reads all of them."""
    start_s: float = 0.0
    """Begin at this time, seconds from the first frame."""
    end_s: float | None = None
    """Stop before this time, seconds from the first frame. None reads to the end."""
    max_frames: int | Literal["auto"] | None = "auto"
    """At most this many frames, spread evenly over the chosen time. Time and memory grow with it. `auto` takes 150, and
    up to 600 where the camera moves too far between them. None takes all."""
    longest_side: int | None = 1280
    """Larger images are reduced to this many pixels on the longer side. None keeps their size; none is enlarged."""
    folder_fps: float = 30.0
    """Rate at which the images of a folder were taken: it gives `fps`, `start_s` and `end_s` their meaning there."""
    alpha: Literal["over-white", "transparent-moves", "opaque-moves"] = "over-white"
    """What transparency (alpha) means. `over-white` lays transparent parts over white. `transparent-moves` and
    `opaque-moves` take it as the mask of what moves, and use the colours as they are stored below it."""

    shot: int | None = None
    """Which shot of a clip of several, from 1. None takes the longest and says so."""

    def check(self) -> None:
        """
        Raises:
            ValueError: a value makes no sense; the message names its option.
        """
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"--video.fps must be above 0, got {self.fps}")
        if not self.folder_fps > 0:
            raise ValueError(f"--video.folder-fps must be above 0, got {self.folder_fps}")
        if self.every < 1:
            raise ValueError(f"--video.every must be 1 or more, got {self.every}")
        if self.start_s < 0:
            raise ValueError(f"--video.start-s must not be negative, got {self.start_s}")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"--video.end-s ({self.end_s}) must be after --video.start-s ({self.start_s})")
        if isinstance(self.max_frames, int) and self.max_frames < 2:
            raise ValueError(f"--video.max-frames must be 2 or more, got {self.max_frames}")
        if self.shot is not None and self.shot < 1:
            raise ValueError(f"--video.shot must be 1 or more, got {self.shot}")
        if self.longest_side is not None and self.longest_side < MIN_SIDE:
            raise ValueError(f"--video.longest-side must be {MIN_SIDE} or more, got {self.longest_side}")
