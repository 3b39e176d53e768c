"""Cameras that were given, at the size of the clip's frames, and frames without the distortion of their lens."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.dataparser.known_cameras import NamedCameras
from das3r_ns.video.clip import Clip


def intrinsics_at(cameras: NamedCameras, size: tuple[int, int]) -> Float[Tensor, "n 3 3"]:
    """K in pixels of frames of `size`.

    Raises:
        ValueError: the cameras speak of images of other proportions.
    """
    K = cameras.K.clone()
    for i, (height, width) in enumerate(cameras.sizes):
        if abs(width * size[0] - height * size[1]) > max(height, width, *size):
            turned = " (they lie on their side: cameras belong to images as they are stored)" * (
                abs(height * size[0] - width * size[1]) <= max(height, width, *size)
            )
            raise ValueError(
                f"the camera of {cameras.names[i]} is for images of {width}x{height} pixels, the frames have "
                f"{size[1]}x{size[0]}: other proportions{turned}. Give the images that the cameras were computed for."
            )
        K[i] = geometry.rescale_intrinsics(K[i], (height, width), size)
    return K


def undistort(
    clip: Clip,
    K: Float[Tensor, "n 3 3"],
    distortion: Float[Tensor, "n 5"],
    masks: Float[Tensor, "n h w"] | None = None,
) -> tuple[Clip, Float[Tensor, "n 3 3"], Float[Tensor, "n h w"] | None]:
    """Frames (and masks) without lens distortion, at the same size and without empty borders, and their intrinsics."""
    if not distortion.any():
        return clip, K, masks
    height, width = clip.size
    frames, K_new = clip.frames.numpy().copy(), K.clone()
    straight = None if masks is None else masks.numpy().copy()
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # OpenCV counts from the first pixel's centre
    maps: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for i in range(len(clip)):
        K_cv = K[i].double().numpy() - half
        coefficients = distortion[i].double().numpy()
        key = K_cv.tobytes() + coefficients.tobytes()
        if key not in maps:  # mostly one lens for the whole clip
            K_straight, _ = cv2.getOptimalNewCameraMatrix(K_cv, coefficients, (width, height), 0)
            x, y = cv2.initUndistortRectifyMap(K_cv, coefficients, np.eye(3), K_straight, (width, height), cv2.CV_32FC1)
            maps[key] = (np.asarray(K_straight), x, y)
        K_straight, x, y = maps[key]
        frames[i] = cv2.remap(frames[i], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if straight is not None:
            straight[i] = cv2.remap(straight[i], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        K_new[i] = torch.from_numpy(K_straight + half).to(K_new)
    return (
        replace(clip, frames=torch.from_numpy(frames)),
        K_new,
        None if straight is None else torch.from_numpy(straight),
    )
