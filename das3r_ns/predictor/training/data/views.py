"""From a frame to what the network sees: cropped, resized, with jittered colours, truth carried along.

The published recipe crops around the principal point, crops again by 0.9 to 1, resizes to a little more than the
target and crops the rest. All crops share one centre, so they are one: `crop_box` composes them and each map is
resampled once, the image with a good filter, the truth by the nearest pixel. The principal point of a view is its
middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from das3r_ns.predictor.training.data.sources import Frame

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the frame, from its corner."""


@dataclass
class AugmentConfig:
    """Random changes to training views. The defaults are the published ones; validation uses none."""

    crop: float = 0.1
    """Up to this share of width and height is cropped away around the principal point. 0 turns it off."""
    enlarge: int = 16
    """The crop shows up to this many pixels less than it could, as if the target were that much larger. 0 turns it
    off."""
    brightness: float = 0.5
    """Brightness is multiplied by 1 - x to 1 + x. 0 turns it off, also below."""
    contrast: float = 0.5
    """Contrast likewise."""
    saturation: float = 0.5
    """Saturation likewise."""
    hue: float = 0.1
    """Hue is turned by up to this share of a full turn either way."""


@dataclass(frozen=True)
class View:
    """One view of a training pair, at the network's size."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]
    dynamic: UInt8[np.ndarray, "h w"]
    K: Float[np.ndarray, "3 3"]
    T_world_camera: Float[np.ndarray, "4 4"]


def make_view(frame: Frame, size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator | None) -> View:
    """Crop and resize a frame to `size` (rows, columns).

    Args:
        rng: draws the changes; None makes the largest view around the principal point, unchanged.
    """
    box = crop_box(frame, size, config, rng)
    rgb = resample(frame.rgb, box, size)
    if rng is not None:
        rgb = jitter(rgb, config, rng)
    return View(
        rgb=rgb,
        depth=nearest(frame.depth, box, size).astype(np.float32),
        dynamic=nearest(frame.dynamic, box, size),
        K=crop_intrinsics(frame.K, box, size),
        T_world_camera=frame.T_world_camera,
    )


def crop_box(frame: Frame, size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator | None) -> Box:
    """The part of the frame that becomes the view: of the view's aspect, centred on the principal point."""
    height, width = frame.depth.shape
    rows, columns = size
    cx, cy = float(frame.K[0, 2]), float(frame.K[1, 2])
    # The largest window around the principal point that lies inside the image.
    half_w, half_h = min(cx, width - cx), min(cy, height - cy)
    enlarged = 0
    if rng is not None:
        kept = 1 - config.crop + config.crop * rng.beta(0.5, 0.5)
        half_w, half_h = kept * half_w, kept * half_h
        enlarged = int(rng.integers(0, config.enlarge)) if config.enlarge else 0
    # Pixels of the frame per pixel of the view, so that an enlarged view still fits into the window.
    scale = min(2 * half_w / (columns + enlarged), 2 * half_h / (rows + enlarged))
    return (cx - scale * columns / 2, cy - scale * rows / 2, cx + scale * columns / 2, cy + scale * rows / 2)


def crop_intrinsics(K: Float[np.ndarray, "3 3"], box: Box, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics in pixels of the view."""
    left, top, right, bottom = box
    cropped = K.astype(np.float32)
    cropped[0, 2] -= left
    cropped[1, 2] -= top
    cropped[0] *= size[1] / (right - left)
    cropped[1] *= size[0] / (bottom - top)
    return cropped


def resample(rgb: UInt8[np.ndarray, "h w 3"], box: Box, size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The box of an image at another size: Lanczos where it shrinks, bicubic where it grows."""
    shrinks = box[2] - box[0] > size[1]
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    height, width = rgb.shape[:2]
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))  # rounding
    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), kernel, box=inside))


def nearest(values: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """The box of a map at another size; every pixel takes the value at its centre."""
    left, top, right, bottom = box
    rows = np.floor(top + (np.arange(size[0]) + 0.5) * (bottom - top) / size[0]).astype(int)
    columns = np.floor(left + (np.arange(size[1]) + 0.5) * (right - left) / size[1]).astype(int)
    return values[rows.clip(0, values.shape[0] - 1)[:, None], columns.clip(0, values.shape[1] - 1)]


def jitter(
    rgb: UInt8[np.ndarray, "h w 3"], config: AugmentConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Change brightness, contrast, saturation and hue, in random order (the usual "colour jitter")."""
    strengths = (config.brightness, config.contrast, config.saturation)
    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths]
    turn = rng.uniform(-config.hue, config.hue)
    changes = [partial(change, factor=factor) for change, factor in zip((brighten, stretch, saturate), factors)]
    for number in rng.permutation(4):
        rgb = changes[number](rgb) if number < 3 else turn_hue(rgb, turn)
    return rgb


def brighten(rgb: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply all colours."""
    return cv2.convertScaleAbs(rgb, alpha=factor)


def stretch(rgb: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply each colour's difference from the image's mean grey."""
    mean = float(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).mean())
    return np.clip(mean + factor * (rgb.astype(np.float32) - mean), 0, 255).astype(np.uint8)


def saturate(rgb: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply each colour's difference from its own grey."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return np.clip(grey + factor * (rgb.astype(np.float32) - grey), 0, 255).astype(np.uint8)


def turn_hue(rgb: UInt8[np.ndarray, "h w 3"], turn: float) -> UInt8[np.ndarray, "h w 3"]:
    """Turn the hue by a share of a full turn."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV_FULL)  # hue in 256ths of a turn: bytes wrap around as hues do
    hsv[..., 0] += np.uint8(round(256 * turn) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
