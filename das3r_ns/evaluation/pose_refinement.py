"""Move a camera to where a render fits an image best: photometric alignment by Levenberg-Marquardt.

The derivative of the image by the six numbers of the motion is taken by rendering six times more, so anything that
renders can be aligned: another method's model, a rasteriser without pose gradients, a CPU one. Coarse to fine: both
images are blurred at first, so that a few pixels of error are within reach.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.lie_groups import exp_map_SE3
from torch import Tensor


@dataclass(frozen=True)
class PoseRefinementConfig:
    """How a test camera is aligned with its image."""

    blur_px: tuple[float, ...] = (4.0, 1.5, 0.0)
    """Standard deviation of the blur at each stage, in pixels. The first is about the largest error that is found."""
    steps_per_stage: int = 6
    """Levenberg-Marquardt steps at each stage; each costs seven renders."""
    probe_px: float = 0.5
    """By how many pixels, about, the image moves when a derivative is taken."""
    huber: float = 0.1
    """Difference of colour (of 1) above which a pixel pulls with constant force: what the scene lacks must not
    drag the camera."""


def refine_pose(
    camera: Cameras,
    render: Callable[[Cameras], dict[str, Tensor]],
    image: Float[Tensor, "h w 3"],
    weight: Float[Tensor, "h w"],
    config: PoseRefinementConfig,
) -> Cameras:
    """The camera (one), moved to where its render differs least from `image`.

    Never worse than the start: a step that does not lower the weighted difference is not taken.

    Args:
        render: gives "rgb" [h w 3] and, for the size of a step, "depth" [h w 1] where the model has it.
        weight: of each pixel; 0 leaves it out.
    """
    scale = _step_sizes(camera, render, config.probe_px)
    current = camera
    for blur in config.blur_px:
        target = _blurred(image, blur)
        current = _align(current, render, target, weight, blur, scale, config)
    return current


def _align(
    camera: Cameras,
    render: Callable[[Cameras], dict[str, Tensor]],
    target: Tensor,
    weight: Tensor,
    blur: float,
    scale: Tensor,
    config: PoseRefinementConfig,
) -> Cameras:
    def residual(candidate: Cameras) -> Tensor:
        return _blurred(render(candidate)["rgb"].detach().cpu(), blur) - target

    now = residual(camera)
    cost, damping = _cost(now, weight, config.huber), 1e-3
    for _ in range(config.steps_per_stage):
        # Columns: change of every pixel by a probe along each of the six directions.
        columns = torch.stack([residual(moved(camera, probe)) - now for probe in torch.diag(scale)], dim=-1)
        pull = weight[..., None] * (config.huber / now.abs().clamp_min(config.huber))  # iteratively reweighted
        A = torch.einsum("hwci,hwcj,hwc->ij", columns, columns, pull).double()
        b = torch.einsum("hwci,hwc,hwc->i", columns, now, pull).double()
        if not torch.isfinite(A).all() or float(A.diagonal().min()) <= 0:
            return camera  # nothing in the image depends on the camera
        step = -torch.linalg.solve(A + damping * torch.diag(A.diagonal()), b)
        step = step.float().clamp(-8 / config.probe_px, 8 / config.probe_px)  # the derivative holds for a few pixels
        candidate = moved(camera, step * scale)
        there = residual(candidate)
        cost_there = _cost(there, weight, config.huber)
        if cost_there < cost:
            gain = (cost - cost_there) / cost
            camera, now, cost, damping = candidate, there, cost_there, damping / 4
            if gain < 1e-5:
                break
        else:
            damping *= 16
            if damping > 1e6:
                break
    return camera


def moved(camera: Cameras, tangent: Float[Tensor, "6"]) -> Cameras:
    """The camera moved in its own axes: translation in world units, then rotation vector in radians."""
    motion = exp_map_SE3(tangent[None].to(camera.camera_to_worlds))
    pose = camera.camera_to_worlds
    rotation = pose[:, :, :3] @ motion[:, :, :3]
    translation = pose[:, :, :3] @ motion[:, :, 3:] + pose[:, :, 3:]
    return replace(camera, camera_to_worlds=torch.cat((rotation, translation), dim=-1))


def _step_sizes(camera: Cameras, render: Callable[[Cameras], dict[str, Tensor]], probe_px: float) -> Tensor:
    """Motions along each direction that move the image by about `probe_px` pixels."""
    focal = float(camera.fx.flatten()[0])
    depth = render(camera).get("depth")
    typical = 1.0 if depth is None else float(depth.detach().flatten().float().median())
    if not typical > 0:
        typical = 1.0
    translation, rotation = probe_px * typical / focal, probe_px / focal
    # Moving ahead, or turning about the axis of view, moves the rim by less.
    return torch.tensor([translation, translation, 2 * translation, rotation, rotation, 2 * rotation])


def _cost(residual: Tensor, weight: Tensor, huber: float) -> float:
    loss = F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=huber)
    return float((loss.double() * weight[..., None].double()).sum())


def _blurred(image: Tensor, sigma: float) -> Tensor:
    if sigma <= 0:
        return image
    reach = int(3 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = image.permute(2, 0, 1)[:, None]
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return x[:, 0].permute(1, 2, 0)
