"""Camera refinement: a small correction for each training frame, and one for the focal length.

The refined camera of a frame is its given camera followed by a correction in the camera's own axes:
`T_world_refined = T_world_camera @ T_camera_refined`. Refined cameras are looked up by frame, never applied on top of
a pose that may be refined already: `refine` leaves every camera alone that does not stand exactly where the dataparser
put its frame. So a camera moved by the user, by `ns-render interpolate` or by an earlier refinement is taken as it is.

Focal length: gsplat has no gradient for intrinsics, but scaling x and y of the camera frame by s is the same image
as scaling the focal length by s, covariances included. So the focal correction goes into the linear part of the
world-to-camera matrix, whose gradient gsplat has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.splatfacto import quat_to_rotmat
from torch import Tensor, nn

from das3r_ns.files.saved_config import SavedConfig


@dataclass
class PoseRefinementConfig(SavedConfig, CameraOptimizerConfig):
    """Which camera corrections are learned, and from when on."""

    _target: type = field(default_factory=lambda: PoseRefinement)
    mode: Literal["off", "quaternion"] = "quaternion"  # type: ignore[assignment]
    """`quaternion` learns a translation and the vector part of a quaternion whose real part is 1 before it is
    normalised (the published parameters, without their length). `off` keeps the given cameras."""
    min_psnr: float | None = None
    """Move a camera only in steps in which its weighted image is explained better than this, in dB. The published
    recipe has 26. None moves it in every step."""
    refine_focal: bool = False
    """Learn one factor on all focal lengths."""
    interpolate: bool = True
    """Give frames that were held out of training the correction of their neighbours in time. The published protocol
    leaves them where the alignment put them."""
    trans_l2_penalty: float = 1e-2
    """Pull of the translation corrections to zero."""
    rot_l2_penalty: float = 1e-3
    """Pull of the rotation corrections to zero."""


class PoseRefinement(CameraOptimizer):
    """Refined cameras of the training frames, by their number.

    Call `set_cameras` once, before training. All lookups by frame are free of waits for the host.
    """

    config: PoseRefinementConfig

    def __init__(
        self, config: PoseRefinementConfig, num_cameras: int, device: torch.device | str = "cpu", **kwargs: object
    ) -> None:
        super().__init__(CameraOptimizerConfig(mode="off"), num_cameras, device)
        self.config = config
        learned = config.mode != "off"
        # One parameter a frame: only the frame of a step has a gradient, so no other camera coasts on its momentum.
        self.corrections = nn.ParameterList([nn.Parameter(torch.zeros(6), learned) for _ in range(num_cameras)])
        self.log_focal = nn.Parameter(torch.zeros(()), learned and config.refine_focal)
        self.register_buffer("camera_to_worlds", torch.eye(4)[:3].repeat(num_cameras, 1, 1))
        self.register_buffer("relative_focal", torch.ones(num_cameras))
        self.register_buffer("frame_index", torch.arange(num_cameras))
        penalty = torch.tensor([config.trans_l2_penalty] * 3 + [config.rot_l2_penalty] * 3)
        self.register_buffer("penalty", penalty, persistent=False)
        self.camera_to_worlds: Tensor
        self.relative_focal: Tensor
        self.frame_index: Tensor
        self.penalty: Tensor

    def set_cameras(self, cameras: Cameras, frame_index: Int[Tensor, "n"] | None = None) -> None:
        """Remember where the dataparser put the training cameras.

        Args:
            cameras: the training cameras in order.
            frame_index: their place in the clip, which is how evaluation cameras name their frame.
        """
        self.camera_to_worlds.copy_(cameras.camera_to_worlds)
        self.relative_focal.copy_((cameras.fx / cameras.width).flatten())
        if frame_index is not None:
            self.frame_index.copy_(frame_index.flatten())

    @property
    def learns(self) -> bool:
        """Whether any correction is learned."""
        return self.config.mode != "off"

    def forward(self, indices: Int[Tensor, "m"]) -> Float[Tensor, "m 3 4"]:
        """Corrections of some frames, to be multiplied from the right. The viewer draws its cameras with them."""
        return rigid_motion(torch.stack([self.corrections[i] for i in indices.tolist()]))

    def refined(self, frame: int) -> Float[Tensor, "1 3 4"]:
        """Refined camera-to-world of a training frame, OpenGL axes, differentiable."""
        given = self.camera_to_worlds[frame][None]
        return compose(given, rigid_motion(self.corrections[frame][None])) if self.learns else given

    def focal_factor(self) -> Float[Tensor, ""]:
        """Refined focal length over given, differentiable."""
        return self.log_focal.exp()

    @torch.no_grad()
    def refine(self, cameras: Cameras, frame_index: Int[Tensor, "m 1"]) -> tuple[Float[Tensor, "m 3 4"], Tensor]:
        """Refined poses, and focal factors [m], of cameras that show frames of the clip.

        A camera that no longer stands where the dataparser put its frame is returned as it is, with factor 1; so is
        a frame that was not trained on, unless `interpolate` is set.
        """
        poses = cameras.camera_to_worlds.clone()
        factors = torch.ones(len(poses), device=poses.device)
        if not self.learns:
            return poses, factors
        index = frame_index.flatten().to(self.frame_index)
        trained = index[:, None] == self.frame_index[None]
        untouched = self._as_given(cameras, trained) | (~trained.any(dim=1) & self.config.interpolate)
        corrections = between_frames(list(self.corrections), self.frame_index, index).to(poses)
        untouched = untouched.to(poses.device)
        poses[untouched] = compose(cameras.camera_to_worlds, rigid_motion(corrections))[untouched]
        factors[untouched] = self.focal_factor().to(poses.device)
        return poses, factors

    def _as_given(self, cameras: Cameras, trained: Bool[Tensor, "m n"]) -> Bool[Tensor, "m"]:
        """Whether each camera is a training camera exactly as the dataparser gave it."""
        row = trained.int().argmax(dim=1)
        given = self.camera_to_worlds[row]
        same_pose = torch.isclose(cameras.camera_to_worlds.to(given), given, atol=1e-6).all(dim=(-1)).all(dim=-1)
        focal = (cameras.fx / cameras.width).flatten().to(given)
        return trained.any(dim=1) & same_pose & torch.isclose(focal, self.relative_focal[row], rtol=1e-4)

    def apply_to_camera(self, camera: Cameras) -> Float[Tensor, "m 3 4"]:
        """Refined pose of a training camera; `ns-export cameras` asks for it by `metadata["cam_idx"]`."""
        if camera.metadata is None or "cam_idx" not in camera.metadata:
            return camera.camera_to_worlds
        return self.refined(int(camera.metadata["cam_idx"])).to(camera.device)

    def get_loss_dict(self, loss_dict: dict) -> None:
        """Nothing: `regularizer` is asked for by frame."""

    def regularizer(self, frame: int) -> Float[Tensor, ""]:
        """Penalty on the correction of one frame: squared, so that small corrections are free to settle."""
        return (self.penalty * self.corrections[frame].square()).sum()

    def get_metrics_dict(self, metrics_dict: dict) -> None:
        """Nothing: reading all corrections in every step would cost more than the step gains from it."""

    def get_param_groups(self, param_groups: dict) -> None:
        """Add what is learned, under the names that the optimizers are configured by."""
        if self.learns:
            param_groups["camera_opt"] = list(self.corrections)
            if self.config.refine_focal:
                param_groups["focal"] = [self.log_focal]


def refined_view(
    given: Float[Tensor, "3 4"], correction: Float[Tensor, "6"], log_focal: Float[Tensor, ""]
) -> tuple[Float[Tensor, "1 4 4"]]:
    """World-to-camera matrix (see `view_matrix`) of a given camera-to-world with its corrections; pure, so that it can
    be recorded."""
    return (view_matrix(compose(given[None], rigid_motion(correction[None])), log_focal.exp()),)


def rigid_motion(correction: Float[Tensor, "m 6"]) -> Float[Tensor, "m 3 4"]:
    """T_camera_refined of corrections: translation, then half the rotation vector to first order.

    Smooth at zero and made of a few products: nerfstudio's exponential maps build tensors on the host in every call.
    """
    real = torch.ones_like(correction[:, :1])
    quat_wxyz = F.normalize(torch.cat((real, correction[:, 3:]), dim=-1), dim=-1)
    return torch.cat((quat_to_rotmat(quat_wxyz), correction[:, :3, None]), dim=-1)


def between_frames(
    values: list[Float[Tensor, "..."]], known: Int[Tensor, "n"], at: Int[Tensor, "m"]
) -> Float[Tensor, "m ..."]:
    """Values of frames that were not trained on: a straight line in time between the neighbours that were, constant
    beyond the ends.

    Args:
        values: one for each trained frame.
        known: the trained frames' places in the clip, ascending or not.
        at: places asked for.
    """
    known, order = known.double().sort()
    table = torch.stack([v.detach() for v in values])[order]
    if len(known) == 1:
        return table[torch.zeros_like(at)]
    place = at.to(known)
    right = torch.searchsorted(known, place).clamp(1, len(known) - 1)
    span = (known[right] - known[right - 1]).clamp_min(1e-6)
    t = ((place - known[right - 1]) / span).clamp(0, 1).to(table)
    return torch.lerp(table[right - 1], table[right], t.view(-1, *[1] * (table.ndim - 1)))


def compose(a: Float[Tensor, "m 3 4"], b: Float[Tensor, "m 3 4"]) -> Float[Tensor, "m 3 4"]:
    """Product of rigid motions without their last row."""
    rotation = a[:, :, :3] @ b[:, :, :3]
    translation = a[:, :, :3] @ b[:, :, 3:] + a[:, :, 3:]
    return torch.cat((rotation, translation), dim=-1)


def view_matrix(camera_to_world: Float[Tensor, "1 3 4"], focal_factor: Float[Tensor, ""]) -> Float[Tensor, "1 4 4"]:
    """World-to-camera matrix with OpenCV axes, x and y scaled by the focal factor (see the head of this file)."""
    rotation = camera_to_world[:, :, :3].transpose(1, 2)
    linear = torch.cat((rotation, -rotation @ camera_to_world[:, :, 3:]), dim=-1)
    one = torch.ones_like(focal_factor)
    # OpenGL looks along -z with y up; OpenCV along z with y down.
    axes = torch.stack((focal_factor, -focal_factor, -one))
    last_row = linear.new_zeros(1, 1, 4)
    last_row[..., 3] = 1
    return torch.cat((linear * axes[None, :, None], last_row), dim=1)
