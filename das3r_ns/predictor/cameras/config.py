"""Settings of the cameras, apart from what finds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from das3r_ns.files.saved_config import SavedConfig


@dataclass
class FeatureConfig(SavedConfig):
    """Point features and which frames are matched."""

    longest_side: int = 1024
    """Frames are reduced to this many pixels on the longer side before features are sought."""
    max_features: int = 1500
    """At most this many a frame, the strongest first."""
    overlap: int = 5
    """Each keyframe is matched with this many that follow it, and with those 2, 4, 8, ... times as far."""
    loop_period: int = 5
    """Every so many keyframes one is matched with all others of its kind, which closes loops. 0 turns it off."""


LensChoice = Literal["auto", "pinhole", "radial", "zoom"]
"""What a lens may do beside being a pinhole."""

Mapper = Literal["global", "incremental"]
"""Global mapping places all frames at once; incremental mapping, one after the other, is slower but needs less."""


@dataclass
class MappingConfig(SavedConfig):
    """Cameras from point features."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Point features and which frames are matched."""
    field_of_view: float = 60.0
    """Angle in degrees that the longer side of the image is first taken to cover; phones have 45 to 75."""
    max_error_px: float = 3.0
    """Matches further than this many pixels from the epipolar line are dropped."""
    min_posed_share: float = 0.5
    """A mapper that poses less than this share of the frames is taken to have failed."""
    lens: LensChoice = "auto"
    """What the lens does. `auto` finds out: distortion that bends straight lines (action cameras, wide lenses) is taken
    out of the images, a lens that zooms gets a focal length for each frame, where the motion proves it.
    `pinhole` looks for neither, `radial` always fits distortion, `zoom` always fits a focal length for each frame."""
    rolling_shutter: bool = True
    """Let cameras move while the rows of a frame are read, where the motion proves that they do."""
    threads: int = 1
    """Threads of the mapper. With more than one, the last digits of the cameras differ from run to run."""
