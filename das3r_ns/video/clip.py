"""A video file or a folder of images in, frames out.

The frames are chosen by time before any is decoded, resized while they are read, and held once. Everything that can
be said against an input (missing, no video, cut short, too few frames, too small, all black) is said here, before
the long work starts.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from das3r_ns.files.hashing import digest_of_file
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.video import images
from das3r_ns.video.bit_depth import FULL_WHITE, shared_white
from das3r_ns.video.config import FRAMES_OF_AUTO, MIN_SIDE, VideoConfig
from das3r_ns.video.image_folder import list_images
from das3r_ns.video.memory import check_memory_of_frames
from das3r_ns.video.transparency import MIN_TOLD_TRANSPARENCY, transparency_note


@dataclass(frozen=True)
class Clip:
    """Frames of one camera in order of time."""

    frames: UInt8[Tensor, "n h w 3"]
    """RGB."""
    fps: float
    """Frames per second of these frames (after every k-th was taken). Folders of images say 30 unless told."""
    names: tuple[str, ...]
    """One name a frame: the image's file name, or `frame_00001` with the 1-based number in the video."""
    source: Path | None = None
    """Where the frames came from; None for frames made in memory."""
    focal_px: float | None = None
    """Focal length in pixels of these frames by the images' EXIF data: a hint, often some per cent wrong."""
    times_s: tuple[float, ...] | None = None
    """When each frame is shown, seconds from the first frame of the video; None where only `fps` is known."""
    alpha: UInt8[Tensor, "n h w"] | None = None
    """How opaque each pixel is (255 fully), where the frames have transparency and `VideoConfig.alpha` takes it as a
    mask. `frames` then holds the colours as they are stored below it."""
    one_shot: bool = False
    """Whether shots were told apart already, and these frames are of one."""

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    def take(self, kept: list[int]) -> "Clip":
        """The clip of some of the frames, given by their places, ascending."""
        fps = self.fps * (len(kept) - 1) / (kept[-1] - kept[0]) if len(kept) > 1 else self.fps
        return replace(
            self,
            frames=self.frames[kept],
            fps=fps,
            names=tuple(self.names[i] for i in kept),
            times_s=None if self.times_s is None else tuple(self.times_s[i] for i in kept),
            alpha=None if self.alpha is None else self.alpha[kept],
        )


def read_clip(path: Path, config: VideoConfig | None = None, upright: bool = True) -> Clip:
    """Read a video file (mp4, mov, webm, avi, mkv, gif, ...) or a folder of images.

    Videos are turned upright by their display matrix, images by their EXIF orientation. Only the named file is
    opened. What is assumed, converted or left out is said in one line each (see docs/inputs.md for the rules).

    Args:
        upright: of images. Off takes them as they are stored.
    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is no video, is cut short, gives fewer than 2 frames, or its frames are of different sizes, too
            small or all of one colour. The message says what to do.
    """
    config = config or VideoConfig()
    config.check()
    _check_exists(path)
    if path.is_dir():
        return _read_folder(path, config, upright)
    from das3r_ns.video.video_file import read_video  # PyAV: folders of images and everything behind them do without

    return read_video(path, config)


def read_images(paths: list[Path], config: VideoConfig, source: Path, upright: bool = True) -> Clip:
    """Read the given images, all of them, as the frames of a clip.

    Args:
        upright: turn them as their EXIF orientation says.
    Raises:
        ValueError: they differ in size, or one cannot be read.
    """
    size = _common_size(paths, upright)
    target = shrunk_size(size, config.longest_side)
    check_memory_of_frames(len(paths), target, str(source))
    white, largest = shared_white(paths)
    if white != FULL_WHITE:
        CONSOLE.print(
            f"The 16-bit images of {source} hold values up to {largest}: {white} is taken for white.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    transparent_of = np.zeros(len(paths))
    frames = np.empty((len(paths), *target, 3), np.uint8)
    alpha = None if config.alpha == "over-white" else np.full((len(paths), *target), 255, np.uint8)
    with stage(f"Reading {len(paths)} images", len(paths), "images") as bar:

        def read(i: int) -> None:
            frame = images.read_frame(paths[i], target, upright, white, "over-white" if alpha is None else "ignored")
            frames[i] = frame.rgb
            transparent_of[i] = frame.transparent
            if alpha is not None:
                opaque = images.read_opacity(paths[i], target, upright)
                alpha[i] = 255 if opaque is None else opaque
            bar.advance()

        parallel_for(read, len(paths))
    transparent = float(transparent_of.mean())
    if transparent > MIN_TOLD_TRANSPARENCY:
        CONSOLE.print(transparency_note(transparent, source), markup=False, highlight=False, soft_wrap=True)
    check_frames(frames, source)
    focal = images.exif_focal_px(paths[0])
    if focal is not None and images.exif_focal_px(paths[-1]) != focal:
        focal = None  # zoomed on the way
    return Clip(
        frames=torch.from_numpy(frames),
        fps=config.folder_fps,
        names=tuple(path.name for path in paths),
        source=source,
        focal_px=None if focal is None else focal * max(target) / max(size),
        alpha=None if alpha is None or int(alpha.min()) == 255 else torch.from_numpy(alpha),
    )


def choose_frames(times_s: tuple[float, ...], config: VideoConfig) -> list[int]:
    """Numbers of the frames to read, ascending, from the times at which they are shown."""
    times = np.asarray(times_s) - times_s[0]
    numbers = np.arange(len(times))
    end_s = np.inf if config.end_s is None else config.end_s
    inside = (times >= config.start_s - 1e-6) & (times < end_s - 1e-6)
    times, numbers = times[inside], numbers[inside]
    if len(times) == 0:
        return []
    if config.fps is not None:
        # The nearest frame to each tick of the wished-for clock; a clock faster than the video hits every frame.
        ticks = np.arange(times[0], times[-1] + 1e-6, 1 / config.fps)
        between = (times[:-1] + times[1:]) / 2
        numbers = numbers[np.unique(np.searchsorted(between, ticks))]
    numbers = numbers[:: config.every]
    most = FRAMES_OF_AUTO if config.max_frames == "auto" else config.max_frames
    if most is not None and len(numbers) > most:
        numbers = numbers[np.round(np.linspace(0, len(numbers) - 1, most)).astype(int)]
    return numbers.tolist()


def shrunk_size(size: tuple[int, int], longest_side: int | None) -> tuple[int, int]:
    """Height and width after the longer side was reduced to `longest_side`; never larger than before."""
    if longest_side is None or max(size) <= longest_side:
        return size
    factor = longest_side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def digest(path: Path, config: VideoConfig) -> str:
    """Hexadecimal digest of what `read_clip` would read: file contents and options. Decodes nothing.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a folder holds no images, or an option makes no sense.
    """
    config.check()
    _check_exists(path)
    options = asdict(config)
    if config.alpha == "over-white":
        del options["alpha"]  # scenes that were predicted before there was a choice are found again
    if config.shot is None:
        del options["shot"]
    total = hashlib.sha256(repr(sorted(options.items())).encode())
    if path.is_dir():
        # Which frames "auto" reads depends on what they show: all of them could be read.
        read = replace(config, max_frames=None) if config.max_frames == "auto" else config
        for image in chosen_images(path, read):
            total.update(f"{image.name}\0{digest_of_file(image)}\0".encode())
    else:
        total.update(digest_of_file(path).encode())
    return total.hexdigest()


def _check_exists(path: Path) -> None:
    if not path.exists():
        beside = f" (relative to {Path.cwd()})" if not path.is_absolute() else ""
        raise FileNotFoundError(
            f"{path}{beside} does not exist. Give a video file, a folder of images or a scene folder."
        )


def _read_folder(folder: Path, config: VideoConfig, upright: bool) -> Clip:
    paths = list_images(folder)
    chosen = choose_frames(_times_of_images(paths, config), config)
    check_count(folder, len(chosen), config, len(paths) / config.folder_fps, config.folder_fps)
    clip = read_images([paths[i] for i in chosen], config, folder, upright)
    return replace(
        clip,
        fps=config.folder_fps * (len(chosen) - 1) / (chosen[-1] - chosen[0]),
        times_s=tuple(i / config.folder_fps for i in chosen),
    )


def chosen_images(folder: Path, config: VideoConfig) -> list[Path]:
    """Images of a folder that `read_clip` reads.

    Raises:
        ValueError: there are none, or some are of a kind that cannot be read.
    """
    paths = list_images(folder)
    return [paths[i] for i in choose_frames(_times_of_images(paths, config), config)]


def _times_of_images(paths: list[Path], config: VideoConfig) -> tuple[float, ...]:
    return tuple(i / config.folder_fps for i in range(len(paths)))


def _common_size(paths: list[Path], upright: bool) -> tuple[int, int]:
    first = images.image_size(paths[0], upright)
    for path in paths[1:]:
        size = images.image_size(path, upright)
        if size != first:
            raise ValueError(
                f"images of one clip must have one size: {paths[0].name} has {first[1]}x{first[0]} pixels, "
                f"{path.name} {size[1]}x{size[0]}. Take out or resize the odd ones in {path.parent}."
            )
    return first


def check_count(path: Path, count: int, config: VideoConfig, duration_s: float, fps: float) -> None:
    if count >= 2:
        return
    options = [f"--video.start-s {config.start_s:g}"] if config.start_s else []
    options += [f"--video.end-s {config.end_s:g}"] if config.end_s is not None else []
    options += [f"--video.fps {config.fps:g}"] if config.fps is not None else []
    options += [f"--video.every {config.every}"] if config.every > 1 else []
    raise ValueError(
        f"{path} lasts {duration_s:.2f} s at {fps:.3g} frames per second and gives {count} "
        f"frame{'' if count == 1 else 's'}, but camera motion needs at least 2"
        + (f". Change {' or '.join(options)}." if options else ": give a longer clip.")
    )


def check_frames(frames: UInt8[np.ndarray, "n h w 3"], path: Path) -> None:
    height, width = frames.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{path} has frames of {width}x{height} pixels, and at least {MIN_SIDE} on the shorter side are needed to "
            "find anything in them. Give the footage in its original size, or raise --video.longest-side if that made "
            "it small."
        )
    spread = max(int(np.ptp(frame[::2, ::2])) for frame in frames)
    if spread < 8:
        kind = "black" if int(frames[0].max()) < 16 else "of one even colour"
        raise ValueError(
            f"all {len(frames)} frames of {path} are {kind}: there is nothing to reconstruct. Play it: was the lens "
            "covered, or did an export fail? --video.start-s and --video.end-s choose a part."
        )
