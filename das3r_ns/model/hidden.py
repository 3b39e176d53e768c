"""Ground that moving objects hide: where no frame ever shows it, it continues what surrounds the hole.

A pixel of a moving object teaches the render nothing about the scene behind it. Where another frame shows that place,
the other frame decides. Where none does, what is left are seed points that nobody corrects and the object's own rim,
which show as a ghost. There a faint pull towards a smooth continuation of the surroundings decides: in every frame,
each pixel of the moving parts is drawn towards the image with those parts painted over (Telea, An image inpainting
technique based on the fast marching method, 2004, from OpenCV). What was made up so is told by the output `unseen`:
see `guessed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from das3r_ns.files.saved_config import SavedConfig

LONGEST_SIDE_PX = 192
"""Pixels on the longer side of the continuations: they are smooth."""
MIN_STATIC_SHARE = 0.05
"""Share of an image that must be static for it to be continued."""
INPAINT_RADIUS_PX = 3
"""Of the neighbourhood that the inpainting looks at, pixels of the small image."""


@dataclass
class HiddenConfig(SavedConfig):
    """What shows where moving objects hide the ground in every frame."""

    weight: float = 0.02
    """Weight of the pull towards a continuation of the surroundings, against 1 for pixels that are seen. 0 turns it
    off: the ghost of the object may stay."""
    grow: float = 0.012
    """Moving parts are grown by this share of the longer side first: their rim is not background."""
    min_frames: float = 2.0
    """What fewer frames than this show, summed by how static their pixels are, counts as made up in the output
    `unseen`."""


class HiddenGround:
    """Continuations of the training images, each made when its frame is first seen, and kept small on the device."""

    def __init__(self, dynamic_prob: Float[Tensor, "n h w"], config: HiddenConfig) -> None:
        self._dynamic_prob, self._config = dynamic_prob, config
        self.made: dict[int, tuple[Tensor, Tensor]] = {}
        """By frame, as `of_frame` gives them; a training that is resumed gets them back."""

    def of_frame(
        self, image: Float[Tensor, "H W 3"], frame: int
    ) -> tuple[Float[Tensor, "1 3 s t"], Float[Tensor, "1 1 s t"]]:
        """Continuation of a training frame and where it hides ground (see `continuation`), on the image's device."""
        if frame not in self.made:
            made = continuation(image.detach().cpu(), self._dynamic_prob[frame].cpu(), self._config.grow)
            self.made[frame] = (made[0].to(image.device), made[1].to(image.device))
        return self.made[frame]

    def replace(self, frame: int, dynamic_prob: Float[Tensor, "h w"]) -> None:
        """Take over what moves in a training frame, which is painted over anew when it is next seen."""
        self._dynamic_prob[frame] = dynamic_prob.to(self._dynamic_prob)
        self.made.pop(frame, None)


def distance_to_ground(
    render: Float[Tensor, "h w 3"], ground: Float[Tensor, "1 3 s t"], hidden: Float[Tensor, "1 1 s t"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of render and continuation over the hidden pixels, as a share of all pixels."""
    size = render.shape[:2]
    ground, hidden = (F.interpolate(m, size, mode="bilinear", align_corners=False) for m in (ground, hidden))
    return ((render - ground[0].permute(1, 2, 0)).abs() * hidden[0].permute(1, 2, 0)).mean()


def continuation(
    image: Float[Tensor, "H W 3"], dynamic_prob: Float[Tensor, "h w"], grow: float
) -> tuple[Float[Tensor, "1 3 s t"], Float[Tensor, "1 1 s t"]]:
    """An image without what moves in it, and where that was; both small.

    Args:
        image: colours in 0..1.
        grow: see `HiddenConfig`.

    Returns:
        The image, painted over from its static surroundings, and 1 where it hides ground. Nothing is hidden where
        hardly anything of the image is static.
    """
    factor = min(1.0, LONGEST_SIDE_PX / max(image.shape[:2]))
    width, height = (max(1, round(side * factor)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image.numpy(), (width, height), interpolation=cv2.INTER_AREA)
    moving = cv2.resize(dynamic_prob.float().numpy(), (width, height), interpolation=cv2.INTER_AREA)
    reach = max(1, round(grow * max(width, height)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    hidden = cv2.dilate((moving > 0.5).astype(np.uint8), disc)
    unsure = cv2.dilate(hidden, disc)  # colours are taken from farther away: the image is soft near the object
    if 1 - unsure.mean() < MIN_STATIC_SHARE:
        hidden[:] = 0
    eight_bit = np.round(255 * np.clip(small, 0, 1)).astype(np.uint8)
    painted = cv2.inpaint(eight_bit, unsure, INPAINT_RADIUS_PX, cv2.INPAINT_TELEA).astype(np.float32) / 255
    as_batch = torch.from_numpy(painted).permute(2, 0, 1)[None].contiguous()
    return as_batch, torch.from_numpy(hidden.astype(np.float32))[None, None]


def guessed(
    static_support: Float[Tensor, "n"], support: Float[Tensor, "n"], num_frames: int, config: HiddenConfig
) -> Float[Tensor, "n 1"]:
    """1 for Gaussians that fewer than `min_frames` frames' worth of static pixels show, else 0.

    Args:
        static_support, support: what each contributes to static pixels and to all pixels, summed over the training
            frames (`remarking.support`).
    """
    a_frame = support / max(num_frames, 1)
    return (static_support < config.min_frames * a_frame).float()[:, None]
