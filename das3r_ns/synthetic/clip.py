"""Render a clip and its truth, and write both."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.synthetic.config import SyntheticConfig
from das3r_ns.synthetic.surfaces import Surface, trace
from das3r_ns.synthetic.world import Mover, camera_path, furnish

SUPERSAMPLING = 2
MOMENTS = 9
"""Images that are averaged while the shutter is open. Odd: the middle one says where the camera and objects are."""


@dataclass(frozen=True)
class SyntheticClip:
    """Frames and the ground truth about them."""

    frames: UInt8[Tensor, "n h w 3"]
    clean: UInt8[Tensor, "n h w 3"]
    """The same images without the moving objects."""
    dynamic_mask: Bool[Tensor, "n h w"]
    depth: Float[Tensor, "n h w"]
    """True z-depth of what is seen, moving objects included, in metres."""
    clean_depth: Float[Tensor, "n h w"]
    """True z-depth of the static scene alone."""
    T_world_camera: Float[Tensor, "n 4 4"]
    K: Float[Tensor, "3 3"]
    fps: float

    def __len__(self) -> int:
        return self.frames.shape[0]


def make_clip(config: SyntheticConfig) -> SyntheticClip:
    """Render the whole clip. About 0.15 s a frame at 320x180 on one core, `MOMENTS` times that with a shutter.

    Raises:
        ValueError: fewer than one frame, an image smaller than 16x16, or objects that never move.
    """
    if config.num_frames < 1 or config.height < 16 or config.width < 16:
        raise ValueError(
            f"a clip of {config.num_frames} frames of {config.width}x{config.height} cannot be made: "
            "at least 1 frame of 16x16 pixels is needed"
        )
    if not 0 <= config.movers_wait < 1:
        raise ValueError(f"movers_wait is a share of the time from 0 to below 1, got {config.movers_wait}")
    rng = np.random.default_rng(config.seed)
    K = geometry.intrinsics(
        config.width / (2 * np.tan(np.radians(config.field_of_view) / 2)), config.height, config.width
    )
    room = furnish(rng, config)
    moments = (np.arange(MOMENTS) + 0.5) / MOMENTS - 0.5 if config.shutter > 0 else np.zeros(1)
    times = (np.arange(config.num_frames)[:, None] + config.shutter * moments) / max(config.num_frames - 1, 1)
    times *= config.path_share
    T_world_camera = camera_path(rng, config, times.ravel()).reshape(*times.shape, 4, 4)
    side = 1.0 if rng.random() < 0.5 else -1.0
    movers = [Mover(rng, config, number, side * (-1) ** number) for number in range(config.movers)]
    rows = []
    middle = times.shape[1] // 2
    for i in range(config.num_frames):
        shots = [
            _shot([*room], [part for mover in movers for part in mover.at(time)], *_rays(T, K.numpy(), config))
            for time, T in zip(times[i].tolist(), T_world_camera[i])
        ]
        gain = 2.0 ** (config.exposure_drift * times[i, middle])
        noise = rng.normal(0, config.noise, (2, config.height, config.width, 3))
        _, _, front, depth, clean_depth = shots[middle]
        rows.append(
            (
                _develop(np.mean([shot[0] for shot in shots], axis=0), gain, noise[0]),
                _develop(np.mean([shot[1] for shot in shots], axis=0), gain, noise[1]),
                _shrink(front.astype(np.float32)) > 0.5,
                _nearest(depth),
                _nearest(clean_depth),
            )
        )
    frames, clean, masks, depth, clean_depth = (torch.from_numpy(np.stack(row)) for row in zip(*rows))
    return SyntheticClip(
        frames,
        clean,
        masks,
        depth.float(),
        clean_depth.float(),
        torch.from_numpy(T_world_camera[:, middle]).float(),
        K,
        config.fps,
    )


def write_clip(clip: SyntheticClip, folder: Path, video: bool = True) -> Path:
    """Write `video.mp4`, `images/`, `clean/`, `dynamic_masks/`, `depth/`, `T_world_camera.txt`, `K.txt` into `folder`.

    The layout is the one that `das3r eval --truth` and `das3r bench` read.

    Args:
        video: whether to write `video.mp4`, which needs PyAV; the images hold the same frames.
    """
    for name in ("images", "clean", "dynamic_masks", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for old in (folder / name).iterdir():  # of a longer clip that was written here before
            if old.stem.isdigit() and int(old.stem) >= len(clip):
                old.unlink()
    for i in range(len(clip)):
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), clip.frames[i].numpy()[..., ::-1])
        cv2.imwrite(str(folder / "clean" / f"{i:05d}.png"), clip.clean[i].numpy()[..., ::-1])
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), clip.dynamic_mask[i].numpy().astype(np.uint8) * 255)
        np.save(folder / "depth" / f"{i:05d}.npy", clip.depth[i].numpy())
    np.savetxt(folder / "T_world_camera.txt", clip.T_world_camera.numpy().reshape(-1, 16), fmt="%.9f")
    np.savetxt(folder / "K.txt", clip.K.numpy(), fmt="%.9f")
    if video:
        write_video(clip.frames, clip.fps, folder / "video.mp4")
    return folder


def write_video(frames: UInt8[Tensor, "n h w 3"], fps: float, path: Path) -> None:
    """Write an mp4 that every player opens (H.264 where the codec is there, else MPEG-4). Odd sizes lose a row or
    column, which 4:2:0 colour cannot hold."""
    from fractions import Fraction

    import av

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "14"} if codec == "libx264" else {"qscale": "2"}
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width].numpy()), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def _rays(T_world_camera: np.ndarray, K: np.ndarray, config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """Origin, and directions with unit z in the camera, so that the ray parameter is the z-depth."""
    h, w, s = config.height * SUPERSAMPLING, config.width * SUPERSAMPLING, SUPERSAMPLING
    v, u = np.meshgrid((np.arange(h) + 0.5) / s, (np.arange(w) + 0.5) / s, indexing="ij")
    directions = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)), axis=-1)
    return T_world_camera[:3, 3], directions @ T_world_camera[:3, :3].T


def _shot(
    room: list[Surface], movers: list[Surface], origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, colour without movers, where movers are in front, depth, depth without movers, at one moment."""
    clean = trace(room, origins, directions)
    seen = trace(movers, origins, directions)
    front = seen[1] < clean[1]
    return np.where(front[..., None], seen[0], clean[0]), clean[0], front, np.where(front, seen[1], clean[1]), clean[1]


def _shrink(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[0] // SUPERSAMPLING, image.shape[1] // SUPERSAMPLING
    return image.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING, -1).mean(axis=(1, 3)).squeeze(-1)


def _nearest(depth: np.ndarray) -> np.ndarray:
    """The depth of the sample next to the pixel's centre: a mean over an edge would lie in mid-air."""
    return depth[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]


def _develop(colour: np.ndarray, gain: float, noise: np.ndarray) -> np.ndarray:
    h, w = colour.shape[0] // SUPERSAMPLING, colour.shape[1] // SUPERSAMPLING
    small = colour.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(np.round(255 * np.clip(small * gain, 0, 1) + noise), 0, 255).astype(np.uint8)
