"""A video file or a folder of images in, frames out."""

from das3r_ns.video.clip import Clip, read_clip
from das3r_ns.video.config import VideoConfig

__all__ = ["Clip", "VideoConfig", "read_clip"]
