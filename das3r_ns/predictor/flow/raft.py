"""RAFT (Teed and Deng, ECCV 2020) as a `FlowEstimator`: torchvision's network and weights.

A pair is looked at both ways at once, each image encoded once. On a GPU the hundreds of small kernels of a pair are
recorded once for a size of images and then run as one CUDA graph: launched one by one they take twice as long.
"""

from __future__ import annotations

import pickle
import re
import threading
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torchvision.models.optical_flow import RAFT, Raft_Large_Weights, raft_large, raft_small
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

from das3r_ns.files.download import DownloadError, Patience, fetch
from das3r_ns.predictor.flow.recorded import RecordedFlow
from das3r_ns.runtime.progress import CONSOLE

WEIGHTS_URL = Raft_Large_Weights.DEFAULT.url
"""What torchvision takes for its large network, 21 MB. The name ends with the first digits of the checksum."""
PATIENCE = Patience(attempts=3)
STEPS = 12
"""Updates of the flow; the paper's own number for evaluation."""
MIN_SIDE = 128
"""Pixels: smaller images have no fourth level of the correlation pyramid."""


class RaftFlow:
    """Flow by RAFT. Satisfies `FlowBothWays`.

    Args:
        weights: torchvision's file of `raft_large` or `raft_small`. None takes what torchvision keeps on this machine,
            and fetches that of `raft_large` if it keeps none.

    Raises:
        FileNotFoundError: the file is not there.
        DownloadError: the weights cannot be fetched.
        ValueError: the file holds something else.
    """

    def __init__(self, weights: Path | None = None, device: str = "auto") -> None:
        weights = weights or kept_weights() or _fetched_weights()
        if not weights.is_file():
            raise FileNotFoundError(
                f"no RAFT weights at {weights}. Put torchvision's raft_large or raft_small file there, leave "
                "raft_weights out to have them fetched, or use flow dis."
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        self._network = _load(weights).to(self._device)
        self._recorded: RecordedFlow | None = None
        # torchvision's network keeps the correlations of the pair it works on in itself: one pair at a time.
        self._one_at_a_time = threading.Lock()

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        """See `FlowEstimator`. The way back is computed too: ask for `both` where both are wanted."""
        return self.both(a, b)[0]

    def both(
        self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]:
        """See `FlowBothWays`."""
        height, width = a.shape[:2]
        pad = (0, max(-width % 8, MIN_SIDE - width), 0, max(-height % 8, MIN_SIDE - height))
        with self._one_at_a_time, torch.inference_mode():
            pair = torch.from_numpy(np.stack((a, b))).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            flow = self._run(F.pad(pair, pad, mode="replicate"))
            forward, backward = flow[..., :height, :width].permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return forward, backward

    def _run(self, pair: Float[Tensor, "2 3 H W"]) -> Float[Tensor, "2 2 H W"]:
        if self._device.type != "cuda":
            return flow_both_ways(self._network, pair)
        with torch.cuda.device(self._device):
            if self._recorded is None or self._recorded.pair.shape != pair.shape:
                self._recorded = None  # its memory is free before the next is recorded
                self._recorded = RecordedFlow(partial(flow_both_ways, self._network), pair)
            return self._recorded(pair)


def flow_both_ways(network: RAFT, pair: Float[Tensor, "2 3 H W"]) -> Float[Tensor, "2 2 H W"]:
    """Flow in pixels from the first image to the second and back, by the parts of torchvision's network.

    Its own `forward` encodes the images again for the way back and enlarges the flow after every update (RAFT,
    sections 3.1 to 3.3).

    Args:
        pair: RGB from -1 to 1; sides are multiples of 8.
    """
    features = network.feature_encoder(pair)
    network.corr_block.build_pyramid(features, features.flip(0))
    hidden_size = network.update_block.hidden_state_size
    context = network.context_encoder(pair)
    hidden, context = torch.tanh(context[:, :hidden_size]), torch.relu(context[:, hidden_size:])
    start = make_coords_grid(2, *features.shape[-2:], device=str(pair.device))
    coords = start
    with torch.device(pair.device):  # else the look-up makes its offsets on the CPU, which no CUDA graph can record
        for _ in range(STEPS):
            correlations = network.corr_block.index_pyramid(coords)
            hidden, change = network.update_block(hidden, context, correlations, coords - start)
            coords = coords + change
    mask = None if network.mask_predictor is None else network.mask_predictor(hidden)
    return upsample_flow(coords - start, mask)


def kept_weights() -> Path | None:
    """A file of RAFT's weights that torchvision has kept on this machine, the large network's before the small's."""
    return next(iter(sorted(_folder().glob("raft_*.pth"))), None)


def _fetched_weights() -> Path:
    path = _folder() / WEIGHTS_URL.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    CONSOLE.print(f"Fetching RAFT's weights to {path}", soft_wrap=True)
    try:
        return fetch(WEIGHTS_URL, path, digits[1] if digits else None, PATIENCE)
    except DownloadError as e:
        raise DownloadError(
            f"{e} Or give a file of RAFT's weights that you have (raft_weights), or use flow dis."
        ) from e


def _folder() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")


def _load(weights: Path) -> RAFT:
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
