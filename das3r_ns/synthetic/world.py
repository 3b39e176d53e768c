"""What stands in the room, what walks through it, how the camera moves, and the textures of all."""

from collections.abc import Sequence

import cv2
import numpy as np
import roma
import torch

from das3r_ns.synthetic.config import SyntheticConfig
from das3r_ns.synthetic.surfaces import Surface


class Mover:
    """A body with a head that walks through the image, bobbing and turning."""

    def __init__(self, rng: np.random.Generator, config: SyntheticConfig, number: int, side: float) -> None:
        scale = config.mover_size * (0.8 if number == 0 else 0.4)
        self.start = np.array([-side * rng.uniform(0.7, 1.0), 0.0, rng.uniform(2.7, 2.9) + 0.9 * min(number, 3)])
        self.end = np.array([side * rng.uniform(0.7, 1.0), 0.0, self.start[2] + rng.uniform(-0.1, 0.3)])
        self.half = np.array([0.62, 1.05, 0.45]) * scale
        self.steps = rng.uniform(2.0, 4.0)
        self.rounds = 1.0 + 0.25 * number
        self.turn = rng.uniform(-1.0, 1.0)
        self.wait = config.movers_wait
        self.textures = [texture(rng, config, 0.8, bright=True) for _ in range(2)]

    def at(self, time: float) -> list[Surface]:
        if self.wait > 0:
            time = max(time - self.wait, 0.0) / (1 - self.wait)
        swing = np.sin(2 * np.pi * self.steps * time)
        # There and back, never at even speed: an object that moves evenly while the camera does looks just like one
        # that stands still at another depth, and no method could tell.
        along = 0.5 - 0.5 * np.cos(2 * np.pi * self.rounds * time)
        centre = (1 - along) * self.start + along * self.end
        centre[1] = 1.2 - self.half[1] - 0.06 * abs(swing)
        body = pose(centre, [0.0, self.turn * time, 0.1 * swing])
        head_at = centre - np.array([0.0, self.half[1] * 1.05, 0.0])
        head = pose(head_at, [0.0, self.turn * time + 0.3 * swing, 0.0])
        return [
            Surface("ellipsoid", np.linalg.inv(body), self.half, self.textures[0], 0.9),
            Surface("ellipsoid", np.linalg.inv(head), np.full(3, self.half[0] * 0.45), self.textures[1], 0.6),
        ]


def furnish(rng: np.random.Generator, config: SyntheticConfig) -> list[Surface]:
    def block(centre: Sequence[float], half: Sequence[float], turn: float = 0.0, tile: float = 5.0) -> Surface:
        T = np.linalg.inv(pose(np.array(centre, dtype=np.float64), [0.0, turn, 0.0]))
        return Surface("box", T, np.array(half, dtype=np.float64), texture(rng, config, tile), tile)

    depth = rng.uniform(6.5, 8.0)
    room = [
        block((0.0, 1.3, 5.0), (30.0, 0.1, 30.0)),  # floor
        block((0.0, -4.0, depth + 0.1), (30.0, 8.0, 0.1), rng.uniform(-0.12, 0.12)),  # wall
        block((-5.5, -4.0, 5.0), (0.1, 8.0, 30.0)),
        block((5.5, -4.0, 5.0), (0.1, 8.0, 30.0)),
    ]
    for x in (np.linspace(-3.2, 3.2, 5) + rng.uniform(-0.3, 0.3, 5)).tolist():
        half = rng.uniform([0.25, 0.3, 0.25], [0.6, 1.0, 0.5]).tolist()
        room.append(block((x, 1.2 - half[1], rng.uniform(4.4, depth - 0.8)), half, rng.uniform(-1.2, 1.2), 0.9))
    return room


def texture(rng: np.random.Generator, config: SyntheticConfig, tile: float, bright: bool = False) -> np.ndarray:
    """A tile of blobs, boxes and noise over several octaves, in linear intensity 0..1, repeating without a seam.

    A texel is about as large as a pixel seen from three metres: finer detail would only alias.
    """
    focal = config.width / (2 * np.tan(np.radians(config.field_of_view) / 2))
    octaves = int(np.clip(round(np.log2(tile * focal / 3)), 4, 11))
    side = 2**octaves
    base = rng.uniform(0.35, 0.75) + rng.uniform(-0.2, 0.2, 3) * (1.0 if bright else 0.5)
    image = np.zeros((side, side, 3))
    for octave in range(max(octaves - 6, 1), octaves - 1):
        noise = rng.normal(size=(2**octave, 2**octave, 1)) + 0.25 * rng.normal(size=(2**octave, 2**octave, 3))
        image += _enlarge(noise, side) * 0.07
    canvas = np.empty((side * 2, side * 2), np.uint8)
    for _ in range(int(30 * max(tile, 1.0))):
        canvas[:] = 0
        centre = rng.integers(side // 2, side + side // 2, 2).tolist()
        size = (side / tile * np.exp(rng.uniform(np.log(0.02), np.log(0.2), 2))).astype(int) + 1
        if rng.random() < 0.5:
            cv2.ellipse(canvas, centre, size.tolist(), rng.uniform(0, 180), 0, 360, (1,), -1)
        else:
            corners = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, 2 * size)), rng.uniform(0, 180)))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], (1,))
        x, y, width, height = cv2.boundingRect(canvas)
        row, column = np.nonzero(canvas[y : y + height, x : x + width])
        down, right = rng.integers(0, side, 2) + np.array([y, x])
        # Wraps around: the tile has no seam.
        image[(row + down) % side, (column + right) % side] = rng.normal(0, 0.2) + rng.normal(0, 0.1, 3)
    image = base + config.contrast * image
    margin = 8
    wrapped = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_WRAP)
    blurred = cv2.GaussianBlur(wrapped, (0, 0), 0.6)[margin:-margin, margin:-margin]
    return np.clip(blurred, 0.02, 0.98).astype(np.float32)


def _enlarge(noise: np.ndarray, side: int) -> np.ndarray:
    """Smoothly enlarge a repeating tile."""
    margin, factor = 4, side // noise.shape[0]
    wrapped = np.pad(noise, ((margin, margin), (margin, margin), (0, 0)), mode="wrap")
    large = cv2.resize(wrapped, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return large[margin * factor : -margin * factor, margin * factor : -margin * factor]


def camera_path(rng: np.random.Generator, config: SyntheticConfig, times: np.ndarray) -> np.ndarray:
    """T_world_camera [n 4 4] at the given times, of which 0 is the first frame's and 1 the last one's."""
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
        T[:3, :3] = T[:3, :3] @ rotation(turn)
        poses.append(T)
    return np.stack(poses)


def _smooth_noise(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Six smooth random signals of about unit size: the shake of a hand."""
    waves = rng.normal(size=(4, 6)) / np.sqrt(np.arange(1, 5))[:, None]
    phases = rng.uniform(0, 2 * np.pi, (4, 6))
    frequencies = np.arange(1, 5)[:, None, None] * 1.3
    return (waves[:, None] * np.sin(2 * np.pi * frequencies * times[None, :, None] + phases[:, None])).sum(axis=0)


def _look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    z = (target - centre) / np.linalg.norm(target - centre)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack((x, np.cross(z, x), z), axis=1)
    T[:3, 3] = centre
    return T


def rotation(rotvec: np.ndarray | list[float]) -> np.ndarray:
    return roma.rotvec_to_rotmat(torch.as_tensor(np.asarray(rotvec, dtype=np.float64))).numpy()


def pose(centre: np.ndarray, rotvec: np.ndarray | list[float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = rotation(rotvec)
    T[:3, 3] = centre
    return T
