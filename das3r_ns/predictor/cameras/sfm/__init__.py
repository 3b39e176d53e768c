"""Cameras from optical flow: poses, one focal length and inverse depths, with no feature matching.

In: flow between frames of one shot with its round-trip error, and the images. Out: a `CameraEstimate`.
World axes are those of the first frame with a camera, unless first cameras are given, whose world is kept.

Stages: `tracks` follows a grid of pixels of each frame through its neighbours (`subpixel` makes their positions exact),
`initialization` finds first cameras (essential matrices, then resection), `bundle_adjustment` refines everything
(robustly; `normal_equations` and `kernels` hold the derivatives and the Schur complement), `estimate` chains them.
What a lens does beside being a pinhole (`lens`: distortion, zoom, rolling shutter) is found by `lens_selection`, which
fits it with `lens_adjustment`; all others know only the pinhole and are given straightened tracks.
Where objects that move cover most of the image, `motion_segmentation` tells them apart, `occlusion_order` finds the
room, and `background` chains those.
"""

from das3r_ns.predictor.cameras.sfm.background import Background, background_cameras
from das3r_ns.predictor.cameras.sfm.estimate import CameraEstimate, estimate_cameras, inlier_share_of, refine_cameras
from das3r_ns.predictor.cameras.sfm.focal import FocalKnowledge
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError
from das3r_ns.predictor.cameras.sfm.lens_selection import ANY_LENS, LensEstimate, LensSearch, select_lens
from das3r_ns.predictor.cameras.sfm.tracks import Tracks, follow_grid, weigh

__all__ = [
    "ANY_LENS",
    "Background",
    "CameraEstimate",
    "FocalKnowledge",
    "InitializationError",
    "LensEstimate",
    "LensSearch",
    "Tracks",
    "background_cameras",
    "estimate_cameras",
    "follow_grid",
    "inlier_share_of",
    "refine_cameras",
    "select_lens",
    "weigh",
]
