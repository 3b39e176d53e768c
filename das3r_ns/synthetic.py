"""A clip whose truth is known: a textured room seen by a hand-held camera while things move through it.

Ray-cast from planes, boxes and ellipsoids, supersampled, deterministic by seed. For tests, the demo, and training
the dynamic predictor. World axes are OpenCV's of an upright camera (x right, y down, z forward), in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns import geometry

SUPERSAMPLING = 2
LIGHT = np.array([-0.4, -0.8, -0.45]) / np.linalg.norm([0.4, 0.8, 0.45])
"""Direction towards the light."""


@dataclass
class SyntheticConfig:
    """What the clip shows."""

    num_frames: int = 40
    """Frames in the clip."""
    height: int = 180
    """Pixels."""
    width: int = 320
    """Pixels."""
    field_of_view: float = 60.0
    """Horizontal, in degrees. Phones have 45 to 75."""
    fps: float = 15.0
    """Frames per second of the written video."""
    seed: int = 0
    """Everything random (furniture, textures, paths, noise) follows from it."""
    camera: Literal["handheld", "rotation", "tripod", "forward", "orbit"] = "handheld"
    """How the camera moves: a sideways sweep with shake; turning on the spot; not at all; straight ahead; an arc
    around the middle of the room."""
    movers: int = 2
    """Things that move. 0 gives a static scene."""
    mover_size: float = 1.0
    """Size of the largest mover. 1 covers about a fifth of the picture, 2 more than half."""
    contrast: float = 1.0
    """Strength of all textures. 0 leaves nothing to track."""
    exposure_drift: float = 0.0
    """Brightness of the last frame over the first, in stops."""
    noise: float = 1.0
    """Sensor noise, standard deviation in grey levels of 255."""


@dataclass(frozen=True)
class SyntheticClip:
    """Frames and the truth about them."""

    frames: UInt8[Tensor, "n h w 3"]
    clean: UInt8[Tensor, "n h w 3"]
    """The same pictures without the moving things."""
    dynamic_mask: Bool[Tensor, "n h w"]
    depth: Float[Tensor, "n h w"]
    """True z-depth of what is seen, moving things included, in metres."""
    clean_depth: Float[Tensor, "n h w"]
    """True z-depth of the static scene alone."""
    T_world_camera: Float[Tensor, "n 4 4"]
    K: Float[Tensor, "3 3"]
    fps: float

    def __len__(self) -> int:
        return self.frames.shape[0]


def make_clip(config: SyntheticConfig) -> SyntheticClip:
    """Render the whole clip. About 0.15 s a frame at 320x180 on one core.

    Raises:
        ValueError: fewer than one frame, or a picture smaller than 16x16.
    """
    if config.num_frames < 1 or config.height < 16 or config.width < 16:
        raise ValueError(
            f"a clip of {config.num_frames} frames of {config.width}x{config.height} cannot be made: "
            "at least 1 frame of 16x16 pixels is needed"
        )
    rng = np.random.default_rng(config.seed)
    K = geometry.intrinsics(
        config.width / (2 * np.tan(np.radians(config.field_of_view) / 2)), config.height, config.width
    )
    room = _furnish(rng, config)
    T_world_camera = _camera_path(rng, config)
    side = 1.0 if rng.random() < 0.5 else -1.0
    movers = [_Mover(rng, config, number, side * (-1) ** number) for number in range(config.movers)]
    rows = []
    for i in range(config.num_frames):
        time = i / max(config.num_frames - 1, 1)
        origins, directions = _rays(T_world_camera[i], K.numpy(), config)
        clean = _trace([*room], origins, directions)
        seen = _trace([part for mover in movers for part in mover.at(time)], origins, directions)
        front = seen[1] < clean[1]
        colour = np.where(front[..., None], seen[0], clean[0])
        gain = 2.0 ** (config.exposure_drift * time)
        noise = rng.normal(0, config.noise, (2, config.height, config.width, 3))
        rows.append(
            (
                _develop(colour, gain, noise[0]),
                _develop(clean[0], gain, noise[1]),
                _shrink(front.astype(np.float32)) > 0.5,
                _nearest(np.where(front, seen[1], clean[1])),
                _nearest(clean[1]),
            )
        )
    frames, clean, masks, depth, clean_depth = (torch.from_numpy(np.stack(row)) for row in zip(*rows))
    return SyntheticClip(
        frames,
        clean,
        masks,
        depth.float(),
        clean_depth.float(),
        torch.from_numpy(T_world_camera).float(),
        K,
        config.fps,
    )


def write_clip(clip: SyntheticClip, folder: Path) -> Path:
    """Write `video.mp4`, `images/`, `clean/`, `dynamic_masks/`, `depth/`, `T_world_camera.txt`, `K.txt` into `folder`.

    The layout is the one that `das3r eval --truth` and `das3r bench` read.
    """
    for name in ("images", "clean", "dynamic_masks", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(len(clip)):
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), clip.frames[i].numpy()[..., ::-1])
        cv2.imwrite(str(folder / "clean" / f"{i:05d}.png"), clip.clean[i].numpy()[..., ::-1])
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), clip.dynamic_mask[i].numpy().astype(np.uint8) * 255)
        np.save(folder / "depth" / f"{i:05d}.npy", clip.depth[i].numpy())
    np.savetxt(folder / "T_world_camera.txt", clip.T_world_camera.numpy().reshape(-1, 16), fmt="%.9f")
    np.savetxt(folder / "K.txt", clip.K.numpy(), fmt="%.9f")
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
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width].numpy()), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@dataclass
class _Surface:
    """A box or an ellipsoid with a texture of its own. A plane is a thin box."""

    shape: Literal["box", "ellipsoid"]
    T_surface_world: np.ndarray
    half_size: np.ndarray
    texture: np.ndarray
    tile: float
    """World size that one tile of the texture covers."""


class _Mover:
    """A body with a head that walks through the picture, bobbing and turning."""

    def __init__(self, rng: np.random.Generator, config: SyntheticConfig, number: int, side: float) -> None:
        scale = config.mover_size * (0.8 if number == 0 else 0.4)
        self.start = np.array([-side * rng.uniform(0.7, 1.0), 0.0, rng.uniform(2.7, 2.9) + 0.9 * min(number, 3)])
        self.end = np.array([side * rng.uniform(0.7, 1.0), 0.0, self.start[2] + rng.uniform(-0.1, 0.3)])
        self.half = np.array([0.62, 1.05, 0.45]) * scale
        self.steps = rng.uniform(2.0, 4.0)
        self.turn = rng.uniform(-1.0, 1.0)
        self.textures = [_texture(rng, config, 0.8, bright=True) for _ in range(2)]

    def at(self, time: float) -> list[_Surface]:
        swing = np.sin(2 * np.pi * self.steps * time)
        centre = (1 - time) * self.start + time * self.end
        centre[1] = 1.2 - self.half[1] - 0.06 * abs(swing)
        body = _pose(centre, [0.0, self.turn * time, 0.1 * swing])
        head_at = centre - np.array([0.0, self.half[1] * 1.05, 0.0])
        head = _pose(head_at, [0.0, self.turn * time + 0.3 * swing, 0.0])
        return [
            _Surface("ellipsoid", np.linalg.inv(body), self.half, self.textures[0], 0.9),
            _Surface("ellipsoid", np.linalg.inv(head), np.full(3, self.half[0] * 0.45), self.textures[1], 0.6),
        ]


def _furnish(rng: np.random.Generator, config: SyntheticConfig) -> list[_Surface]:
    def thing(centre: Sequence[float], half: Sequence[float], turn: float = 0.0, tile: float = 5.0) -> _Surface:
        T = np.linalg.inv(_pose(np.array(centre, dtype=np.float64), [0.0, turn, 0.0]))
        return _Surface("box", T, np.array(half, dtype=np.float64), _texture(rng, config, tile), tile)

    depth = rng.uniform(6.5, 8.0)
    room = [
        thing((0.0, 1.3, 5.0), (30.0, 0.1, 30.0)),  # floor
        thing((0.0, -4.0, depth + 0.1), (30.0, 8.0, 0.1), rng.uniform(-0.12, 0.12)),  # wall
        thing((-5.5, -4.0, 5.0), (0.1, 8.0, 30.0)),
        thing((5.5, -4.0, 5.0), (0.1, 8.0, 30.0)),
    ]
    for x in (np.linspace(-3.2, 3.2, 5) + rng.uniform(-0.3, 0.3, 5)).tolist():
        half = rng.uniform([0.25, 0.3, 0.25], [0.6, 1.0, 0.5]).tolist()
        room.append(thing((x, 1.2 - half[1], rng.uniform(4.4, depth - 0.8)), half, rng.uniform(-1.2, 1.2), 0.9))
    return room


def _texture(rng: np.random.Generator, config: SyntheticConfig, tile: float, bright: bool = False) -> np.ndarray:
    """A tile of blobs, boxes and noise over several octaves, in linear intensity 0..1, repeating without a seam.

    A texel is about as large as a pixel seen from three metres: finer detail would only alias.
    """
    focal = config.width / (2 * np.tan(np.radians(config.field_of_view) / 2))
    octaves = int(np.clip(round(np.log2(tile * focal / 3)), 4, 11))
    side = 2**octaves
    base = rng.uniform(0.35, 0.75) + rng.uniform(-0.2, 0.2, 3) * (1.0 if bright else 0.5)
    picture = np.zeros((side, side, 3))
    for octave in range(max(octaves - 6, 1), octaves - 1):
        noise = rng.normal(size=(2**octave, 2**octave, 1)) + 0.25 * rng.normal(size=(2**octave, 2**octave, 3))
        picture += _enlarge(noise, side) * 0.07
    for _ in range(int(30 * max(tile, 1.0))):
        canvas = np.zeros((side * 2, side * 2), np.float32)
        centre = rng.integers(side // 2, side + side // 2, 2).tolist()
        size = (side / tile * np.exp(rng.uniform(np.log(0.02), np.log(0.2), 2))).astype(int) + 1
        if rng.random() < 0.5:
            cv2.ellipse(canvas, centre, size.tolist(), rng.uniform(0, 180), 0, 360, (1.0,), -1)
        else:
            corners = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, 2 * size)), rng.uniform(0, 180)))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], (1.0,))
        folded = canvas.reshape(2, side, 2, side).max(axis=(0, 2))  # wraps around: the tile has no seam
        folded = np.roll(folded, rng.integers(0, side, 2), axis=(0, 1))
        paint = rng.normal(0, 0.2) + rng.normal(0, 0.1, 3)
        picture = picture * (1 - folded[..., None]) + paint * folded[..., None]
    picture = base + config.contrast * picture
    return np.clip(
        cv2.GaussianBlur(np.tile(picture, (3, 3, 1)), (0, 0), 0.6)[side:-side, side:-side], 0.02, 0.98
    ).astype(np.float32)


def _enlarge(noise: np.ndarray, side: int) -> np.ndarray:
    """Smoothly enlarge a repeating tile."""
    tiled = np.tile(noise, (3, 3, 1))
    return cv2.resize(tiled, (3 * side, 3 * side), interpolation=cv2.INTER_CUBIC)[side:-side, side:-side]


def _camera_path(rng: np.random.Generator, config: SyntheticConfig) -> np.ndarray:
    times = np.linspace(0, 1, config.num_frames)
    shake = _smooth_noise(rng, times)
    target = np.array([0.0, 0.1, 5.2])
    side = 1.0 if rng.random() < 0.5 else -1.0
    poses = []
    for time, wobble in zip(times, shake):
        centre = np.zeros(3)
        turn = np.zeros(3)
        if config.camera == "handheld":
            centre = np.array([side * (time - 0.5) * 1.5, -0.1 + 0.1 * np.sin(3 * time), 0.35 * time])
            centre += 0.05 * wobble[:3]
        elif config.camera == "orbit":
            angle = side * np.radians(35) * (time - 0.5)
            centre = target + 5.2 * np.array([np.sin(angle), -0.05, -np.cos(angle)]) + 0.05 * wobble[:3]
        elif config.camera == "forward":
            centre = np.array([0.02, -0.2, 1.4 * time - 0.4])
        elif config.camera == "rotation":
            turn = np.array([0.05 * np.sin(4 * time), np.radians(30) * (time - 0.5), 0.0])
        T = _look_at(centre, centre + np.array([0.0, 0.0, 1.0]) if config.camera in ("rotation", "forward") else target)
        if config.camera in ("handheld", "orbit"):
            turn = turn + 0.012 * wobble[3:]
        T[:3, :3] = T[:3, :3] @ _rotation(turn)
        poses.append(T)
    return np.stack(poses)


def _smooth_noise(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Six smooth random signals of about unit size: the shake of a hand."""
    waves = rng.normal(size=(4, 6)) / np.sqrt(np.arange(1, 5))[:, None]
    phases = rng.uniform(0, 2 * np.pi, (4, 6))
    frequencies = np.arange(1, 5)[:, None, None] * 1.3
    return (waves[:, None] * np.sin(2 * np.pi * frequencies * times[None, :, None] + phases[:, None])).sum(axis=0)


def _rotation(rotvec: np.ndarray | list[float]) -> np.ndarray:
    return roma.rotvec_to_rotmat(torch.as_tensor(np.asarray(rotvec, dtype=np.float64))).numpy()


def _pose(centre: np.ndarray, rotvec: np.ndarray | list[float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = _rotation(rotvec)
    T[:3, 3] = centre
    return T


def _look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    z = (target - centre) / np.linalg.norm(target - centre)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack((x, np.cross(z, x), z), axis=1)
    T[:3, 3] = centre
    return T


def _rays(T_world_camera: np.ndarray, K: np.ndarray, config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """Origin, and directions with unit z in the camera, so that the ray parameter is the z-depth."""
    h, w, s = config.height * SUPERSAMPLING, config.width * SUPERSAMPLING, SUPERSAMPLING
    v, u = np.meshgrid((np.arange(h) + 0.5) / s, (np.arange(w) + 0.5) / s, indexing="ij")
    directions = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)), axis=-1)
    return T_world_camera[:3, 3], directions @ T_world_camera[:3, :3].T


def _trace(surfaces: list[_Surface], origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (linear, shaded) and z-depth (inf where nothing is hit) of the nearest surface along each ray."""
    nearest = np.full(directions.shape[:2], np.inf)
    colour = np.zeros((*directions.shape[:2], 3), np.float32)
    for surface in surfaces:
        R = surface.T_surface_world[:3, :3]
        o = R @ origin + surface.T_surface_world[:3, 3]
        d = directions @ R.T
        intersect = _hit_box if surface.shape == "box" else _hit_ellipsoid
        depth = intersect(o, d, surface.half_size)
        hit = depth < nearest
        if not hit.any():
            continue
        nearest[hit] = depth[hit]
        points = o + d[hit] * depth[hit][:, None]
        colour[hit] = _shade(surface, points)
    return colour, nearest


def _hit_box(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> np.ndarray:
    safe = np.where(np.abs(d) < 1e-12, 1e-12, d)
    a, b = (-half - o) / safe, (half - o) / safe
    enter = np.minimum(a, b).max(axis=-1)
    leave = np.maximum(a, b).min(axis=-1)
    return np.where((enter < leave) & (enter > 1e-3), enter, np.inf)


def _hit_ellipsoid(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> np.ndarray:
    o, d = o / half, d / half
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
    discriminant = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (depth > 1e-3), depth, np.inf)


def _shade(surface: _Surface, points: np.ndarray) -> np.ndarray:
    """Diffuse light on the texture; the shade depends on the place alone, so all frames agree."""
    if surface.shape == "box":
        face = np.argmax(np.abs(points / surface.half_size), axis=-1)
        normal = np.zeros_like(points)
        rows = np.arange(len(points))
        normal[rows, face] = np.sign(points[rows, face])
        u = np.where(face == 0, points[:, 2], points[:, 0]) + 0.37 * face
        v = np.where(face == 1, points[:, 2], points[:, 1])
    else:
        normal = points / surface.half_size**2
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        u, v = np.arctan2(normal[:, 0], -normal[:, 2]) * surface.half_size[0], points[:, 1]
    side = surface.texture.shape[0]
    map_u, map_v = ((c / surface.tile * side - 0.5).astype(np.float32) for c in (u, v))
    albedo = np.empty((len(points), 3), np.float32)
    for start in range(0, len(points), 30000):  # cv2.remap takes at most 32767 rows
        part = slice(start, start + 30000)
        albedo[part] = cv2.remap(
            surface.texture, map_u[part, None], map_v[part, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )[:, 0]
    light = np.clip(normal @ surface.T_surface_world[:3, :3] @ LIGHT, 0, None)
    return albedo * (0.55 + 0.45 * light[:, None]).astype(np.float32)


def _shrink(picture: np.ndarray) -> np.ndarray:
    h, w = picture.shape[0] // SUPERSAMPLING, picture.shape[1] // SUPERSAMPLING
    return picture.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING, -1).mean(axis=(1, 3)).squeeze(-1)


def _nearest(depth: np.ndarray) -> np.ndarray:
    """The depth of the sample next to the pixel's centre: a mean over an edge would lie in mid-air."""
    return depth[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]


def _develop(colour: np.ndarray, gain: float, noise: np.ndarray) -> np.ndarray:
    h, w = colour.shape[0] // SUPERSAMPLING, colour.shape[1] // SUPERSAMPLING
    small = colour.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(np.round(255 * np.clip(small * gain, 0, 1) + noise), 0, 255).astype(np.uint8)
