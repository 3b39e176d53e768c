"""What a synthetic clip shows."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class SyntheticConfig:
    """What the clip shows."""

    num_frames: int = 40
    """Frames in the clip."""
    height: int = 180
    """Pixels."""
    width: int = 320
    """Pixels."""
    field_of_view: float = 60.0
    """Horizontal, in degrees. Phones have 45 to 75."""
    fps: float = 15.0
    """Frames per second of the written video."""
    seed: int = 0
    """Everything random (furniture, textures, paths, noise) follows from it."""
    camera: Literal["handheld", "rotation", "tripod", "forward", "orbit"] = "handheld"
    """How the camera moves: a sideways sweep with shake; turning on the spot; not at all; straight ahead; an arc
    around the middle of the room."""
    movers: int = 2
    """Objects that move. 0 gives a static scene."""
    mover_size: float = 1.0
    """Size of the largest mover. 1 covers about a fifth of the image, 2 more than half."""
    contrast: float = 1.0
    """Strength of all textures. 0 leaves nothing to track."""
    exposure_drift: float = 0.0
    """Brightness of the last frame over the first, in stops."""
    shutter: float = 0.0
    """Share of the frame interval in which the shutter is open: what moves meanwhile is blurred. 0 takes no time."""
    path_share: float = 1.0
    """Share of the camera's path, and of what objects do, that the clip shows, from the beginning. 0.2 is what a camera
    of five times the frame rate sees in as many frames."""
    movers_wait: float = 0.0
    """Share of the time, 0 to below 1, for which objects stand still before they move."""
    noise: float = 1.0
    """Sensor noise, standard deviation in grey levels of 255."""
