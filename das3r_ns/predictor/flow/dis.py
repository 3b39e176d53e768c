"""Dense inverse search, the default estimator: no weights, a few milliseconds a pair on a CPU."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


class DisFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016), OpenCV's implementation. Deterministic, no weights."""

    def __init__(self) -> None:
        self._of_thread = threading.local()  # OpenCV's object holds the images it works on

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        # The gradient constancy of DIS leaves small differences in brightness alone; no equalisation is needed.
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b)]
        if not hasattr(self._of_thread, "dis"):
            self._of_thread.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return self._of_thread.dis.calc(grey[0], grey[1], np.zeros((*a.shape[:2], 2), np.float32))
