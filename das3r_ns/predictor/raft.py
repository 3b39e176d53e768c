"""RAFT (Teed and Deng, ECCV 2020) of torchvision as a `FlowEstimator`, from weights that are on disk already."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import nn
from torchvision.models.optical_flow import raft_large, raft_small

STEPS = 12
"""Updates of the flow; the paper's own number for evaluation."""


class RaftFlow:
    """Flow by RAFT. On a GPU in half precision and both ways at once. Satisfies `FlowBothWays`.

    Raises:
        FileNotFoundError: the weights are not there; nothing is ever downloaded.
        ValueError: the file holds something else.
    """

    def __init__(self, weights: Path, device: str = "auto") -> None:
        if not weights.is_file():
            raise FileNotFoundError(
                f"no RAFT weights at {weights}. Put torchvision's raft_large or raft_small file there, or use flow dis."
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        self._network = _load(weights).to(self._device)
        # torchvision's network keeps the correlations of the pair it works on in itself: one pair at a time.
        self._one_at_a_time = threading.Lock()

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        return self._flow(np.stack((a, b)), [0], [1])[0]

    def both(
        self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]:
        """See `FlowBothWays`."""
        forward, backward = self._flow(np.stack((a, b)), [0, 1], [1, 0])
        return forward, backward

    def _flow(
        self, pictures: UInt8[np.ndarray, "p h w 3"], sources: list[int], targets: list[int]
    ) -> Float32[np.ndarray, "n h w 2"]:
        height, width = pictures.shape[1:3]
        # RAFT wants sides that are multiples of 8 and at least 128.
        pad = (0, max(-width % 8, 128 - width), 0, max(-height % 8, 128 - height))
        half = self._device.type == "cuda"
        with self._one_at_a_time, torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            images = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            images = F.pad(images, pad, mode="replicate")
            flow = self._network(images[sources], images[targets], num_flow_updates=STEPS)[-1]
            return flow[..., :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()


def _load(weights: Path) -> nn.Module:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # The small network has bottleneck blocks (three convolutions), the large one residual blocks (two).
        build = raft_small if any("convnormrelu3" in key for key in state) else raft_large
        network = build(weights=None).eval()
        network.load_state_dict(state)
    except (pickle.UnpicklingError, RuntimeError, TypeError, EOFError) as e:
        raise ValueError(
            f"{weights} does not hold weights of torchvision's RAFT. Give torchvision's raft_large or raft_small file, "
            "or use flow dis."
        ) from e
    return network
