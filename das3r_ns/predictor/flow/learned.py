"""Flow by our own network (`flow.network`) as a `FlowEstimator`.

Both directions of a pair are estimated at once, each image encoded once; on a GPU as one CUDA graph in half precision.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from das3r_ns.predictor.flow.flow_maps import resize_flow
from das3r_ns.predictor.flow.network import FlowNetwork, load_flow_network
from das3r_ns.predictor.flow.network_config import CELL, MIN_SIDE, ImageFeatures
from das3r_ns.predictor.flow.recorded import RecordedFlow

UPDATES, REFINEMENTS = 8, 2
"""Two updates more than in training, for the way from no motion to a large one."""
MAX_SIDE_PX = 1024
"""Larger images are reduced to this longer side: correlations grow with the square of the number of pixels, 0.3 GB here
and 4 GB at twice the side."""


class LearnedFlow:
    """Flow by our own network. Satisfies `FlowBothWays`.

    Args:
        weights: a file of `das3r train-flow`.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it holds something else.
    """

    def __init__(
        self,
        weights: Path,
        device: str = "auto",
        updates: int = UPDATES,
        refinements: int = REFINEMENTS,
        max_side_px: int = MAX_SIDE_PX,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device, self._max_side_px = torch.device(device), max_side_px
        network = _fused(load_flow_network(weights)).to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._flow = partial(flow_both_ways, network, updates, refinements)
        self._recorded: RecordedFlow | None = None
        self._one_at_a_time = threading.Lock()  # one CUDA graph, one memory

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        """See `FlowEstimator`. The way back is computed too: ask for `both` where both are wanted."""
        return self.both(a, b)[0]

    def both(
        self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]:
        """See `FlowBothWays`."""
        size = (a.shape[0], a.shape[1])
        factor = self._max_side_px / max(size)
        if factor < 1:
            reduced = (max(round(size[1] * factor), 1), max(round(size[0] * factor), 1))
            a, b = (cv2.resize(image, reduced, interpolation=cv2.INTER_AREA) for image in (a, b))
        height, width = a.shape[:2]
        pad = (0, max(-width % CELL, MIN_SIDE - width), 0, max(-height % CELL, MIN_SIDE - height))
        with self._one_at_a_time, torch.inference_mode():
            pair = torch.from_numpy(np.stack((a, b))).to(self._device).permute(0, 3, 1, 2).float() / 255
            flow = self._run(F.pad(pair, pad, mode="replicate"))
            forward, backward = flow[..., :height, :width].permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return resize_flow(forward, size), resize_flow(backward, size)

    def _run(self, pair: Float[Tensor, "2 3 H W"]) -> Float[Tensor, "2 2 H W"]:
        if self._device.type != "cuda":
            return self._flow(pair)
        with torch.cuda.device(self._device):
            if self._recorded is None or self._recorded.pair.shape != pair.shape:
                self._recorded = None  # its memory is free before the next is recorded
                self._recorded = RecordedFlow(self._flow, pair)
            return self._recorded(pair)


def flow_both_ways(
    network: FlowNetwork, updates: int, refinements: int, pair: Float[Tensor, "2 3 H W"]
) -> Float[Tensor, "2 2 H W"]:
    """Flow in pixels from the first image to the second and back.

    The updates start with no motion, at the whole size: started at half the size they lose objects of few cells
    (docs/training.md has figures).

    Args:
        pair: RGB from 0 to 1; sides are multiples of 8 and at least `MIN_SIDE`.
    """
    # Half precision keeps three digits more than bfloat16, which training uses for its range.
    with torch.autocast(pair.device.type, torch.float16, enabled=pair.device.type == "cuda", cache_enabled=False):
        there = network.encode(pair.contiguous(memory_format=torch.channels_last))
        back = ImageFeatures(*(values.flip(0) for values in there))
        no_motion = torch.zeros(2, 2, *there.coarse.shape[2:], device=pair.device)
        return network.match(there, back, updates, refinements, start=no_motion).final[-1].float()


def _fused(network: FlowNetwork) -> FlowNetwork:
    """The same with every norm taken into the convolution before it."""
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[1], nn.BatchNorm2d):
            part[0] = fuse_conv_bn_eval(part[0], part[1])  # type: ignore[type-var]
            part[1] = nn.Identity()
    return network
