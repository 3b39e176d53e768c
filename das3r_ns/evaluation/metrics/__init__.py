"""The reported numbers as pure functions: tensors in, numbers out, no files and no printing.

`masks` (J, J recall, F, shares marked, calibration), `poses` (ATE, RPE, focal error), `images` (paper PSNR, static
PSNR, static SSIM, clean PSNR) and `perceptual` (LPIPS, whose weights may be missing). Everything is worked in float64
on the CPU: these numbers are compared with other people's to the second decimal.
"""

from das3r_ns.evaluation.metrics.images import clean_psnr, paper_psnr, psnr, ssim_map, static_psnr, static_ssim
from das3r_ns.evaluation.metrics.masks import (
    MaskScores,
    boundary_f,
    calibration_counts,
    jaccard,
    mask_scores,
    pair_masks_per_frame,
)
from das3r_ns.evaluation.metrics.poses import PoseErrors, focal_error_percent, pose_errors

__all__ = [
    "MaskScores",
    "PoseErrors",
    "boundary_f",
    "calibration_counts",
    "clean_psnr",
    "focal_error_percent",
    "jaccard",
    "mask_scores",
    "pair_masks_per_frame",
    "paper_psnr",
    "pose_errors",
    "psnr",
    "ssim_map",
    "static_psnr",
    "static_ssim",
]
