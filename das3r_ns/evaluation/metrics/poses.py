"""How near a predicted camera path is to the true one: ATE, RPE (both by evo) and the focal length.

A path from images alone is known up to a similarity, so it is first moved onto the truth by the best one
(Umeyama over the camera centres), as every published table does. RPE is taken between neighbouring frames, all
pairs, after that alignment.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry

MOTIONLESS = 1e-6
"""A path whose spread is below this share of its distance from the origin stands still (float noise)."""


@dataclass(frozen=True)
class PoseErrors:
    """Errors of a camera path after similarity alignment."""

    ate: float
    """Root mean square distance of the camera centres, in the ground truth's units."""
    rpe_translation: float
    """Root mean square error of the step from frame to frame, in the ground truth's units."""
    rpe_rotation_deg: float
    """Root mean square error of the turn from frame to frame, in degrees."""
    path_length: float
    """Length of the true path, in its units."""
    T_truth_predicted: Float[Tensor, "4 4"]
    """The alignment: similarity from the predicted world to the true one."""

    @property
    def ate_percent(self) -> float:
        """ATE in percent of the length of the true path."""
        return 100 * self.ate / self.path_length


def pose_errors(T_world_camera: Float[Tensor, "n 4 4"], truth_T_world_camera: Float[Tensor, "m 4 4"]) -> PoseErrors:
    """ATE and RPE of camera-to-world poses, OpenCV axes, frame by frame in the same order.

    A predicted camera that stands still while the true one moves is scored as such: no similarity makes it better
    than the mean of the true path.

    Raises:
        ValueError: different numbers of frames, fewer than 3, values that are not finite, matrices that are no
            rigid motions, or a true camera that stands still (no similarity can then be found, and ATE would say
            nothing).
    """
    from evo.core.metrics import APE, RPE, PoseRelation, Unit

    _check_path(T_world_camera, "predicted")
    _check_path(truth_T_world_camera, "true")
    if len(T_world_camera) != len(truth_T_world_camera):
        raise ValueError(
            f"{len(T_world_camera)} predicted poses cannot be compared with {len(truth_T_world_camera)} true ones: "
            "give one true pose for each frame"
        )
    predicted, truth = _rigid(T_world_camera), _rigid(truth_T_world_camera)
    if _stands_still(truth):
        raise ValueError("the true camera stands still, so its path fixes no scale and no direction: leave poses out")
    alignment = align_paths(predicted, truth)
    aligned, _ = geometry.apply_similarity(alignment, predicted)
    pair = (_evo_path(truth), _evo_path(aligned))
    ate = APE(PoseRelation.translation_part)
    translation = RPE(PoseRelation.translation_part, delta=1, delta_unit=Unit.frames, all_pairs=True)
    rotation = RPE(PoseRelation.rotation_angle_deg, delta=1, delta_unit=Unit.frames, all_pairs=True)
    for metric in (ate, translation, rotation):
        metric.process_data(pair)
    return PoseErrors(
        ate=_rms(ate.error),
        rpe_translation=_rms(translation.error),
        rpe_rotation_deg=_rms(rotation.error),
        path_length=float(truth[:, :3, 3].diff(dim=0).norm(dim=1).sum()),
        T_truth_predicted=alignment,
    )


def align_paths(predicted: Float[Tensor, "n 4 4"], truth: Float[Tensor, "n 4 4"]) -> Float[Tensor, "4 4"]:
    """Similarity T_truth_predicted that brings the camera centres closest in the least-squares sense (Umeyama).

    Where the centres lie on a line or in one point they leave a turn free, which changes no distance between the
    centres; it is then chosen so that the cameras look the same way on average.
    """
    source, target = predicted[:, :3, 3], truth[:, :3, 3]
    if _stands_still(predicted):
        T = torch.eye(4, dtype=torch.float64)
        T[:3, :3] = _mean_rotation(truth[:, :3, :3] @ predicted[:, :3, :3].transpose(-1, -2))
        T[:3, 3] = target.mean(dim=0) - T[:3, :3] @ source.mean(dim=0)
        return T
    spread = torch.linalg.svdvals(source - source.mean(dim=0))
    if spread[1] > 1e-6 * spread[0]:
        return geometry.similarity(source, target)
    # On a line: three further points a camera, its axes' ends, fix the turn about the line. They are short, so
    # that the centres still decide everything else.
    reach = 1e-3 * spread[0]
    scale = (target - target.mean(dim=0)).norm() / (source - source.mean(dim=0)).norm()
    ends_source = (source[:, None] + reach * predicted[:, :3, :3].transpose(-1, -2)).reshape(-1, 3)
    ends_target = (target[:, None] + reach * scale * truth[:, :3, :3].transpose(-1, -2)).reshape(-1, 3)
    return geometry.similarity(torch.cat((source, ends_source)), torch.cat((target, ends_target)))


def focal_error_percent(
    focal_px: Float[Tensor, "n"], truth_focal_px: Float[Tensor, "n"], width: int, truth_width: int
) -> float:
    """Mean over the frames of |predicted / true - 1| in percent, both as shares of their image's width."""
    ratio = (focal_px.double() / width) / (truth_focal_px.double() / truth_width)
    return float(100 * (ratio - 1).abs().mean())


def _check_path(T: Tensor, which: str) -> None:
    if len(T) < 3:
        raise ValueError(f"{len(T)} {which} poses are too few: a similarity needs 3")
    bad = torch.nonzero(~torch.isfinite(T).all(dim=(1, 2)))[:, 0].tolist()
    if bad:
        raise ValueError(f"the {which} poses of frames {_few(bad)} are not finite (NaN or infinity)")
    R = T[:, :3, :3].double()
    off = (R @ R.transpose(-1, -2) - torch.eye(3, dtype=torch.float64, device=R.device)).abs().amax(dim=(1, 2))
    last = (T[:, 3].double() - torch.tensor([0.0, 0, 0, 1], dtype=torch.float64, device=T.device)).abs().amax(dim=1)
    bad = torch.nonzero((off > 1e-2) | (last > 1e-6) | (torch.linalg.det(R) < 0))[:, 0].tolist()
    if bad:
        raise ValueError(
            f"the {which} poses of frames {_few(bad)} are not rigid motions: the upper left 3x3 must be a rotation "
            "(a scale in it must be divided out) and the last row 0 0 0 1"
        )


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _stands_still(T: Tensor) -> bool:
    centres = T[:, :3, 3]
    spread = float((centres - centres.mean(dim=0)).norm(dim=1).max())
    return spread <= MOTIONLESS * max(1e-3, float(centres.norm(dim=1).max()))


def _rigid(T: Tensor) -> Tensor:
    """The same poses in float64 with exact rotations. Text and float32 round them by more than evo accepts."""
    exact = T.double().cpu().clone()
    exact[:, :3, :3] = _nearest_rotation(exact[:, :3, :3])
    return exact


def _mean_rotation(R: Tensor) -> Tensor:
    """The rotation nearest to the mean of the given ones (chordal mean)."""
    return _nearest_rotation(R.mean(dim=0))


def _nearest_rotation(M: Tensor) -> Tensor:
    """The rotation nearest to each 3x3 matrix in the least-squares sense (Kabsch)."""
    return cast(Tensor, roma.special_procrustes(M))


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def _evo_path(T_world_camera: Tensor):
    from evo.core.trajectory import PosePath3D

    return PosePath3D(poses_se3=list(T_world_camera.numpy()))
