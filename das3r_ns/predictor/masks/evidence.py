"""Evidence of motion, pixel by pixel: what no depth explains, and what stands out. Cues are asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float16, Float32, UInt8

from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.saliency_cues import contrasts
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage

SaliencyCue = Literal["colour", "depth", "motion"]
"""What an object may stand out in from all that reaches the image border (`saliency_cues`)."""
SALIENCY_CUES: tuple[SaliencyCue, ...] = get_args(SaliencyCue)


SURPRISE = 0.35
"""Least weight of a residual of `SURPRISING` where flow hardly measured: what contradicts every depth in spite of a
large uncertainty moves, while agreement within a large uncertainty says nothing."""
SURPRISING = (1.0, 2.5)
"""Residuals between which that weight grows from nothing."""


@dataclass(frozen=True)
class Evidence:
    """Evidence of motion of every frame of a clip, at map resolution.

    All of it is one array, so that flow carries it from frame to frame at once; half precision, for a long clip's fills
    the memory.
    """

    values: Float16[np.ndarray, "n h w 5"]
    """The residual, its weight, then the saliency cues in their order."""

    @classmethod
    def empty(cls, num_frames: int, size: tuple[int, int]) -> Evidence:
        """Evidence of frames that have shown nothing yet: nothing speaks for motion.

        Args:
            size: height and width of the maps.
        """
        return cls(np.zeros((num_frames, *size, 2 + len(SALIENCY_CUES)), np.float16))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def residual(self) -> Float16[np.ndarray, "n h w"]:
        """What no depth explains, in standard deviations of the flow's noise; exactly 0 where no view sees the pixel.
        A view: writing to it changes the evidence."""
        return self.values[..., 0]

    @property
    def weight(self) -> Float16[np.ndarray, "n h w"]:
        """How far the residual is to be believed, 0 to 1: what flow never measured is unknown, neither moving nor
        static. A view: writing to it changes the evidence."""
        return self.values[..., 1]

    def cue(self, name: SaliencyCue) -> Float16[np.ndarray, "n h w"]:
        """How much each pixel stands out in one cue, 0 to 1. A view: writing to it changes the evidence."""
        return self.values[..., 2 + SALIENCY_CUES.index(name)]

    def set_frame(self, index: int, image: UInt8[np.ndarray, "h w 3"], fit: InverseDepth, config: MaskConfig) -> None:
        """Take what one frame shows.

        Args:
            image: RGB at map resolution.
            fit: of the frame's inverse depth to its flow.
        """
        residual = clean_residual(fit.residual, config)
        self.values[index, ..., 0] = residual
        self.values[index, ..., 1] = residual_weight(residual, fit.reliability)
        self.values[index, ..., 2:] = contrasts(image, fit)


def clean_residual(residual: Float32[np.ndarray, "h w"], config: MaskConfig) -> Float32[np.ndarray, "h w"]:
    """The residual of a frame without specks. Where no view sees a pixel (NaN) it is 0: nothing speaks for motion."""
    filled = np.nan_to_num(residual, nan=0.0)
    return cv2.medianBlur(filled, config.median_px) if config.median_px > 1 else filled


def residual_weight(
    residual: Float32[np.ndarray, "h w"], reliability: Float32[np.ndarray, "h w"] | None
) -> Float32[np.ndarray, "h w"]:
    """How far a residual is to be believed: as far as flow measured there, but for what contradicts even so.

    Args:
        residual: in standard deviations of the flow's noise, 0 where no view sees the pixel.
        reliability: as of `InverseDepth`; None: every pixel that is seen is seen well.
    """
    if reliability is None:
        return (residual > 0).astype(np.float32)
    low, high = SURPRISING
    surprise = SURPRISE * np.clip((residual - low) / (high - low), 0, 1)
    return np.maximum(reliability, surprise).astype(np.float32)


def collect_evidence(
    posed: PosedFlow,
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    offsets: tuple[int, ...],
    config: MaskConfig,
) -> Evidence:
    """Evidence of a clip from any cameras and flow, for a predictor that has a depth of its own. The geometric one
    collects it while it fits its depth. Frames without a pose of their own say nothing.

    Args:
        image: RGB frame at map resolution.
        offsets: distances in frames, both ways, over which flow is compared with the cameras.
    """
    n = len(posed)
    evidence = Evidence.empty(n, posed.flow.map_size)
    with stage(f"Motion evidence of {n} frames", n) as bar:

        def one_frame(i: int) -> None:
            fit = posed.fit(i, offsets) if posed.pose_known[i] else None
            if fit is not None:
                evidence.set_frame(i, image(i), fit, config)
            bar.advance()

        parallel_for(one_frame, n)
    return evidence
