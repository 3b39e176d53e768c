"""A clip whose truth is known: a textured room seen by a hand-held camera while objects move through it.

Ray-cast from planes, boxes and ellipsoids, supersampled, deterministic by seed. For tests, the demo, and training
the dynamic predictor. World axes are OpenCV's of an upright camera (x right, y down, z forward), in metres.
"""

from das3r_ns.synthetic.clip import SyntheticClip, make_clip, write_clip, write_video
from das3r_ns.synthetic.config import SyntheticConfig

__all__ = ["SyntheticClip", "SyntheticConfig", "make_clip", "write_clip", "write_video"]
