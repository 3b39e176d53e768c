"""The truth about clips: one `TruthClip` a sequence, whatever format its publisher chose.

`truth` holds the type, the package's own folder layout and the readers all sets share; `davis`, `sintel` and `tum`
read those sets as their publishers pack them. Poses come out as camera-to-world with OpenCV axes, intrinsics with the
first pixel's centre at (0.5, 0.5), masks as True where something moves.
"""

from das3r_ns.datasets.davis import read_davis
from das3r_ns.datasets.sintel import read_sintel
from das3r_ns.datasets.truth import TruthClip, is_truth_folder, read_truth_folder
from das3r_ns.datasets.truth_files import TruthError, read_dynamic_mask, read_image, read_poses
from das3r_ns.datasets.tum import associate, read_tum_dynamics, read_tum_trajectory

__all__ = [
    "TruthClip",
    "TruthError",
    "associate",
    "is_truth_folder",
    "read_davis",
    "read_dynamic_mask",
    "read_image",
    "read_poses",
    "read_sintel",
    "read_truth_folder",
    "read_tum_dynamics",
    "read_tum_trajectory",
]
