"""How the geometric predictor takes clips that are not as clips should be: what people film, edit and download.

    python benchmarks/unusual.py                                   # all kinds, seed 0: half an hour on two cores
    python benchmarks/unusual.py --kinds letterbox logo --seeds 0 1
    python benchmarks/unusual.py --cache FOLDER                    # clips are kept there, and rendered only once

Each is a synthetic clip whose truth is known, made in an unusual way or changed afterwards. What was laid over the
picture (bars, logos, words and what is between them) belongs to no scene: it counts in no column but the last, which
says how much of it the dynamic maps leave out. Masks are those of motion alone. Seconds are of processor time, all
threads together.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import tyro
from depth import depth_errors
from jaxtyping import Bool

from das3r_ns.evaluation.metrics.masks import mask_scores
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.geometric import GeometricPredictor, GeometricPredictorConfig
from das3r_ns.predictor.masks import MaskConfig
from das3r_ns.predictor.progress import CONSOLE
from das3r_ns.scene import Scene
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip
from das3r_ns.video import Clip, VideoConfig, read_clip

HEADER = (
    "| kind | seed | ATE, % of the path | focal error, % | J | abs-rel mean, % | CPU s a frame | warned | "
    "laid over: left out, % |"
)
WARNING = re.compile(r"\x1b\[33m[A-Z]")
"""Yellow words. The clocks of progress bars are yellow too."""


RIM_PX = 3
PICTURES = ("frames", "clean", "dynamic_mask", "depth", "clean_depth")


@dataclass(frozen=True)
class Changed:
    """A clip after the change, and where it no longer shows the scene."""

    clip: SyntheticClip
    laid_over: Bool[np.ndarray, "h w"] | None = None


@dataclass(frozen=True)
class Kind:
    """How one kind of clip is made."""

    config: SyntheticConfig
    change: Callable[[SyntheticClip], Changed] = Changed


def letterbox(clip: SyntheticClip, share: float = 0.12) -> Changed:
    """Black bars above and below, each `share` of the height."""
    rows = round(share * clip.frames.shape[1])
    bars = np.zeros(clip.frames.shape[1:3], bool)
    bars[:rows] = bars[-rows:] = True
    return _painted(clip, bars, 0)


def pillarbox(clip: SyntheticClip) -> Changed:
    """Black bars left and right that make a picture of 9:16 one of 16:9."""
    height, width = clip.frames.shape[1:3]
    beside = (round(height * 16 / 9) - width) // 2
    bars = np.ones((height, width + 2 * beside), bool)
    bars[:, beside:-beside] = False

    def wider(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(maps, (*(0, 0) * (maps.ndim - 3), beside, beside))

    pictures = {name: wider(getattr(clip, name)) for name in PICTURES}
    K = clip.K.clone()
    K[0, 2] += beside
    return Changed(replace(clip, **pictures, K=K), bars)


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
    """White words that let half of the picture through, in the lower left corner."""
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
    picture, there = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    where, size = (round(0.08 * width), round(0.86 * height)), width / 480
    cv2.putText(there, "WAIT FOR IT UNTIL THE END", where, 0, size, (255,), 6, cv2.LINE_8)
    cv2.putText(picture, "WAIT FOR IT UNTIL THE END", where, 0, size, (255,), 2, cv2.LINE_AA)
    painted = _painted(clip, there > 0, np.repeat(picture[..., None], 3, axis=2))
    return replace(painted, laid_over=_hull(there > 0))


def subtitles(clip: SyntheticClip) -> Changed:
    """Lines of white words with black outlines, each for a third of the time, with a pause between them."""
    height, width = clip.frames.shape[1:3]
    frames, everywhere = clip.frames.clone(), np.zeros((height, width), bool)
    for k, line in enumerate(("I have never seen", "anything like this", "in all my life")):
        part = slice(k * len(clip) // 3, (k + 1) * len(clip) // 3 - 2)
        picture, there = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
        where, size = (round(0.2 * width), round(0.86 * height)), width / 480
        cv2.putText(there, line, where, 0, size, (255,), 6, cv2.LINE_8)
        cv2.putText(picture, line, where, 0, size, (255,), 2, cv2.LINE_AA)
        frames[part, torch.from_numpy(there > 0)] = torch.from_numpy(picture[there > 0][:, None])
        everywhere |= _hull(there > 0)
    return Changed(replace(clip, frames=frames), everywhere)


def fade_in(clip: SyntheticClip, frames: int = 5) -> Changed:
    """From black to the full picture, the first frame wholly black."""
    return _exposed(clip, np.minimum(np.arange(len(clip)) / frames, 1)[:, None, None, None])


def flicker(clip: SyntheticClip, strength: float = 0.2) -> Changed:
    """Bands of light that run down the picture, as lamps give under a rolling shutter."""
    rows = np.arange(clip.frames.shape[1])[None, :, None, None] / clip.frames.shape[1]
    at = np.arange(len(clip))[:, None, None, None]
    return _exposed(clip, 1 + strength * np.sin(2 * np.pi * (1.5 * rows + 0.37 * at)))


def compressed(clip: SyntheticClip, bits_a_pixel: float = 0.12) -> Changed:
    """Through a video file of few bits and back: blocks are plain to see. Small pictures need more bits a pixel."""
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
    return Changed(replace(clip, **{name: getattr(clip, name).flip(0) for name in (*PICTURES, "T_world_camera")}))


def mirrored(clip: SyntheticClip) -> Changed:
    """Left and right exchanged: the world and its cameras become their mirror images."""
    flip = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    pictures = {name: getattr(clip, name).flip(2) for name in PICTURES}
    return Changed(replace(clip, **pictures, T_world_camera=flip @ clip.T_world_camera @ flip))


def upright(config: SyntheticConfig) -> SyntheticConfig:
    """The same, filmed with the phone held upright: the field of view is that of the longer side."""
    half = math.tan(math.radians(config.field_of_view) / 2) * config.height / config.width
    return replace(config, height=config.width, width=config.height, field_of_view=2 * math.degrees(math.atan(half)))


USUAL = SyntheticConfig(num_frames=36)
KINDS = {
    "usual": Kind(USUAL),
    "letterbox": Kind(USUAL, letterbox),
    "pillarbox": Kind(upright(replace(USUAL, height=152, width=270)), pillarbox),
    "logo": Kind(USUAL, logo),
    "watermark": Kind(USUAL, watermark),
    "caption": Kind(USUAL, caption),
    "subtitles": Kind(USUAL, subtitles),
    "fade from black": Kind(USUAL, fade_in),
    "flicker": Kind(USUAL, flicker),
    "compressed": Kind(USUAL, compressed),
    "backwards": Kind(USUAL, backwards),
    "mirrored": Kind(USUAL, mirrored),
    "portrait": Kind(upright(USUAL)),
    "narrow, 30 degrees": Kind(replace(USUAL, field_of_view=30.0, mover_size=0.5)),
    "narrow, filled": Kind(replace(USUAL, field_of_view=30.0)),
    "wide, 100 degrees": Kind(replace(USUAL, field_of_view=100.0)),
    "noise of 8": Kind(replace(USUAL, noise=8.0)),
    "low contrast": Kind(replace(USUAL, contrast=0.3)),
    "small movers": Kind(replace(USUAL, mover_size=0.3)),
    "four movers": Kind(replace(USUAL, movers=4)),
    "movers wait": Kind(replace(USUAL, movers_wait=0.5)),
    "slow": Kind(replace(USUAL, path_share=0.2, num_frames=50)),
    "fast": Kind(replace(USUAL, num_frames=13)),
    "motion blur": Kind(replace(USUAL, shutter=0.8, num_frames=24)),
}


@dataclass
class Options:
    """What to measure."""

    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(KINDS))
    """Which kinds of clips; their names are those of the table."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the synthetic clips."""
    cache: Path | None = None
    """Folder in which rendered clips are kept. None renders them each time."""
    threads: int = 2
    """Processor threads."""


def main(options: Options) -> None:
    unknown = [name for name in options.kinds if name not in KINDS]
    if unknown:
        raise ValueError(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(HEADER, "|---" * 9 + "|", sep="\n", flush=True)
    for name in options.kinds:
        for seed in options.seeds:
            kind = KINDS[name]
            made = kind.change(_made(replace(kind.config, seed=seed), options.cache))
            print(row(f"{name} | {seed}", made), flush=True)


def row(name: str, made: Changed) -> str:
    """One clip's line of the table."""
    truth, laid_over = made.clip, made.laid_over
    predictor = GeometricPredictor(GeometricPredictorConfig(masks=MaskConfig(refiner="none")))
    CONSOLE.record = True
    CONSOLE.export_text()  # forgets what was said of the clip before
    start = time.process_time()
    try:
        scene = predictor(Clip(truth.frames, truth.fps, tuple(f"{i:05d}" for i in range(len(truth)))))
    except PredictionError as e:
        return f"| {name} | error: {e} |"
    seconds = (time.process_time() - start) / len(truth)
    warned = "yes" if WARNING.search(CONSOLE.export_text(styles=True)) else ""
    poses = pose_errors(scene.T_world_camera, truth.T_world_camera)
    focal = 100 * (float(scene.K[0, 0, 0]) / float(truth.K[0, 0]) - 1)
    seen = np.ones(truth.frames.shape[1:3], bool)
    if laid_over is not None:  # nor does a rim that compression would mix with it
        seen = cv2.dilate(laid_over.astype(np.uint8), np.ones((2 * RIM_PX + 1,) * 2)) == 0
    moving = _dynamic(scene, seen.shape)
    j = mask_scores(torch.from_numpy(moving & seen), truth.dynamic_mask & torch.from_numpy(seen)).j_mean
    # Without a true depth a pixel does not count.
    depth = torch.where(torch.from_numpy(seen), truth.depth, torch.nan)
    relative = depth_errors(scene, replace(truth, depth=depth)).relative
    left_out = "" if laid_over is None else f"{100 * moving[:, laid_over].mean():.0f}"
    return (
        f"| {name} | {poses.ate_percent:.2f} | {focal:+.2f} | {j:.3f} | {100 * np.nanmean(relative):.2f} | "
        f"{seconds:.2f} | {warned} | {left_out} |"
    )


def _dynamic(scene: Scene, size: tuple[int, ...]) -> Bool[np.ndarray, "n h w"]:
    return np.stack([cv2.resize(m.numpy(), (size[1], size[0])) for m in scene.dynamic_prob]) > 0.5


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


def _made(config: SyntheticConfig, cache: Path | None) -> SyntheticClip:
    if cache is None:
        return make_clip(config)
    path = cache / ("-".join(str(value) for value in astuple(config)) + ".pt")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = make_clip(config)
        torch.save({part.name: getattr(clip, part.name) for part in fields(clip)}, path)
    return SyntheticClip(**torch.load(path, weights_only=True))


if __name__ == "__main__":
    main(tyro.cli(Options))
