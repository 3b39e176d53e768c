"""Clips as people edit and publish them: bars, words, fades, compression. Each takes a clip with its truth and changes
both."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from jaxtyping import Bool

from das3r_ns.synthetic import SyntheticClip
from das3r_ns.video.clip import read_clip
from das3r_ns.video.config import VideoConfig

IMAGES = ("frames", "clean", "dynamic_mask", "depth", "clean_depth")


@dataclass(frozen=True)
class Changed:
    """A clip after the change, and where it no longer shows the scene."""

    clip: SyntheticClip
    laid_over: Bool[np.ndarray, "h w"] | None = None


def letterbox(clip: SyntheticClip, share: float = 0.12) -> Changed:
    """Black bars above and below, each `share` of the height."""
    rows = round(share * clip.frames.shape[1])
    bars = np.zeros(clip.frames.shape[1:3], bool)
    bars[:rows] = bars[-rows:] = True
    return _painted(clip, bars, 0)


def pillarbox(clip: SyntheticClip) -> Changed:
    """Black bars left and right that make an image of 9:16 one of 16:9."""
    height, width = clip.frames.shape[1:3]
    beside = (round(height * 16 / 9) - width) // 2
    bars = np.ones((height, width + 2 * beside), bool)
    bars[:, beside:-beside] = False

    def wider(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(maps, (*(0, 0) * (maps.ndim - 3), beside, beside))

    images = {name: wider(getattr(clip, name)) for name in IMAGES}
    K = clip.K.clone()
    K[0, 2] += beside
    return Changed(replace(clip, **images, K=K), bars)


def logo(clip: SyntheticClip) -> Changed:
    """A solid sign in the upper right corner."""
    height, width = clip.frames.shape[1:3]
    sign = np.zeros((height, width, 3), np.uint8)
    centre, radius = (round(0.88 * width), round(0.17 * height)), round(0.11 * height)
    cv2.circle(sign, centre, radius, (230, 40, 30), -1)
    cv2.putText(
        sign, "TV", (centre[0] - radius // 2, centre[1] + radius // 4), 0, radius / 28, (255, 255, 255), 2, cv2.LINE_AA
    )
    there = np.zeros((height, width), np.uint8)
    cv2.circle(there, centre, radius, (1,), -1)
    return _painted(clip, there > 0, sign)


def watermark(clip: SyntheticClip, opacity: float = 0.5) -> Changed:
    """White words that let half of the image through, in the lower left corner."""
    height, width = clip.frames.shape[1:3]
    letters = np.zeros((height, width), np.uint8)
    cv2.putText(
        letters, "@someone", (round(0.04 * width), round(0.93 * height)), 0, width / 320, (255,), 2, cv2.LINE_AA
    )
    alpha = torch.from_numpy(opacity * letters[..., None].astype(np.float32) / 255)
    frames = ((1 - alpha) * clip.frames + alpha * 255).round().to(torch.uint8)
    return Changed(replace(clip, frames=frames), _hull(letters > 127))


def caption(clip: SyntheticClip) -> Changed:
    """A line of white words with black outlines in the lower third, all the time."""
    height, width = clip.frames.shape[1:3]
    image, there = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    where, size = (round(0.08 * width), round(0.86 * height)), width / 480
    cv2.putText(there, "WAIT FOR IT UNTIL THE END", where, 0, size, (255,), 6, cv2.LINE_8)
    cv2.putText(image, "WAIT FOR IT UNTIL THE END", where, 0, size, (255,), 2, cv2.LINE_AA)
    painted = _painted(clip, there > 0, np.repeat(image[..., None], 3, axis=2))
    return replace(painted, laid_over=_hull(there > 0))


def subtitles(clip: SyntheticClip) -> Changed:
    """Lines of white words with black outlines, each for a third of the time, with a pause between them."""
    height, width = clip.frames.shape[1:3]
    frames, everywhere = clip.frames.clone(), np.zeros((height, width), bool)
    for k, line in enumerate(("I have never seen", "anything like this", "in all my life")):
        part = slice(k * len(clip) // 3, (k + 1) * len(clip) // 3 - 2)
        image, there = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
        where, size = (round(0.2 * width), round(0.86 * height)), width / 480
        cv2.putText(there, line, where, 0, size, (255,), 6, cv2.LINE_8)
        cv2.putText(image, line, where, 0, size, (255,), 2, cv2.LINE_AA)
        frames[part, torch.from_numpy(there > 0)] = torch.from_numpy(image[there > 0][:, None])
        everywhere |= _hull(there > 0)
    return Changed(replace(clip, frames=frames), everywhere)


def fade_in(clip: SyntheticClip, frames: int = 5) -> Changed:
    """From black to the full image, the first frame wholly black."""
    return _exposed(clip, np.minimum(np.arange(len(clip)) / frames, 1)[:, None, None, None])


def flicker(clip: SyntheticClip, strength: float = 0.2) -> Changed:
    """Bands of light that run down the image, as lamps give under a rolling shutter."""
    rows = np.arange(clip.frames.shape[1])[None, :, None, None] / clip.frames.shape[1]
    at = np.arange(len(clip))[:, None, None, None]
    return _exposed(clip, 1 + strength * np.sin(2 * np.pi * (1.5 * rows + 0.37 * at)))


def compressed(clip: SyntheticClip, bits_a_pixel: float = 0.12) -> Changed:
    """Through a video file of few bits and back: blocks are plain to see. Small images need more bits a pixel."""
    height, width = clip.frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poor.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(round(clip.fps)))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.bit_rate = round(bits_a_pixel * height * width * clip.fps)
            for frame in clip.frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.numpy(), format="rgb24")))
            container.mux(stream.encode())
        return Changed(replace(clip, frames=read_clip(path, VideoConfig(max_frames=None)).frames))


def backwards(clip: SyntheticClip) -> Changed:
    """Played from its end."""
    return Changed(replace(clip, **{name: getattr(clip, name).flip(0) for name in (*IMAGES, "T_world_camera")}))


def mirrored(clip: SyntheticClip) -> Changed:
    """Left and right exchanged: the world and its cameras become their mirror images."""
    flip = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    images = {name: getattr(clip, name).flip(2) for name in IMAGES}
    return Changed(replace(clip, **images, T_world_camera=flip @ clip.T_world_camera @ flip))


def night(clip: SyntheticClip, light: float = 0.1, electrons: float = 400.0) -> Changed:
    """A tenth of the light, brightened again by the camera: shot noise in every pixel, shadows without detail."""
    rng = np.random.default_rng(0)
    linear = (clip.frames.numpy() / 255.0) ** 2.2 * light
    caught = rng.poisson(linear * electrons) / electrons + rng.normal(0, 2 / electrons, linear.shape)
    shown = np.clip(caught * 0.5 / light, 0, 1) ** (1 / 2.2)
    return Changed(replace(clip, frames=torch.from_numpy(np.round(255 * shown).astype(np.uint8))))


def zoomed(clip: SyntheticClip, by: float = 1.15) -> Changed:
    """A lens that zooms in slowly. The focal length of the truth is that of the first frame."""
    return _warped(clip, np.linspace(1, by, len(clip)), np.zeros((len(clip), 2)))


def stabilised(clip: SyntheticClip, crop: float = 1.12, reach: float = 0.04) -> Changed:
    """Cropped, and shifted within the crop from frame to frame, as phones do against shake: the principal point wanders
    by up to `reach` of the width."""
    at = np.arange(len(clip))
    shift = np.stack((np.sin(0.9 * at) + 0.5 * np.sin(0.31 * at), np.cos(0.7 * at + 1)), axis=1) / 1.5
    changed = _warped(clip, np.full(len(clip), crop), reach * clip.frames.shape[2] * shift)
    K = clip.K.clone()
    K[:2, :2] *= crop
    return replace(changed, clip=replace(changed.clip, K=K))


def dropped(clip: SyntheticClip, share: float = 0.2) -> Changed:
    """Without a stretch in the middle, as where a recorder could not keep up."""
    first = round(len(clip) * (0.5 - share / 2))
    kept = [i for i in range(len(clip)) if not first <= i < first + round(len(clip) * share)]
    return _only(clip, kept)


def repeated(clip: SyntheticClip, every: int = 4) -> Changed:
    """Every fourth frame twice, as 24 frames a second are made 30."""
    return _only(clip, sorted([*range(len(clip)), *range(0, len(clip), every)]))


def whip_pan(clip: SyntheticClip, turn: float = 0.5, frames: int = 4) -> Changed:
    """Shaken aside for a moment in the middle, by half of the width and back, with the blur of it. Nothing of the
    scene is seen at the sides meanwhile."""
    count, width = len(clip), clip.frames.shape[2]
    shift = np.zeros((count, 2))
    first = count // 2 - frames // 2
    shift[first : first + frames, 0] = turn * width * np.sin(np.pi * (np.arange(frames) + 1) / (frames + 1))
    changed = _warped(clip, np.ones(count), shift).clip
    images = changed.frames.numpy().copy()
    for i in range(first - 1, first + frames + 1):
        length = max(1, round(abs(shift[i + 1, 0] - shift[i - 1, 0]) / 4))
        images[i] = cv2.blur(images[i], (length, 1))
    return Changed(replace(changed, frames=torch.from_numpy(images)))


def _only(clip: SyntheticClip, kept: list[int]) -> Changed:
    return Changed(replace(clip, **{name: getattr(clip, name)[kept] for name in (*IMAGES, "T_world_camera")}))


def _warped(clip: SyntheticClip, scale: np.ndarray, shift: np.ndarray) -> Changed:
    """Each frame enlarged around its middle, then shifted (pixels); what comes in from outside repeats the border."""
    height, width = clip.frames.shape[1:3]
    middle = np.array([width, height]) / 2 - 0.5
    images: dict[str, torch.Tensor] = {}
    for name in IMAGES:
        maps = getattr(clip, name).numpy()
        smooth = cv2.INTER_CUBIC if name in ("frames", "clean") else cv2.INTER_NEAREST
        warped = [
            cv2.warpAffine(
                one.astype(np.uint8) if one.dtype == bool else one,
                np.hstack((s * np.eye(2), ((1 - s) * middle + d)[:, None])),
                (width, height),
                flags=smooth,
                borderMode=cv2.BORDER_REPLICATE,
            ).astype(maps.dtype)
            for one, s, d in zip(maps, scale, shift)
        ]
        images[name] = torch.from_numpy(np.stack(warped))
    return Changed(replace(clip, **images))


def _hull(words: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Words and what lies between them."""
    outline = cv2.convexHull(np.argwhere(words)[:, ::-1].astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(words.shape, np.uint8), outline, (1,)) > 0


def _painted(clip: SyntheticClip, where: Bool[np.ndarray, "h w"], colour: int | np.ndarray) -> Changed:
    frames = torch.where(torch.from_numpy(where)[..., None], torch.as_tensor(colour, dtype=torch.uint8), clip.frames)
    return Changed(replace(clip, frames=frames), where)


def _exposed(clip: SyntheticClip, gain: np.ndarray) -> Changed:
    frames = np.clip(np.round(clip.frames.numpy() * gain), 0, 255).astype(np.uint8)
    return Changed(replace(clip, frames=torch.from_numpy(frames)))
