"""The scene that `written_reconstructions` and `written_phones` write as other programs would: a slanted plane, whose
depth is known at every pixel of every image, and a camera that moves past it.

`FRAME` is the size of the frames. Nothing of `das3r_ns` is used.
"""

from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

FRAME = (202, 362)
"""Height and width: no program leaves them as they are."""
N = 6
PLANE = np.array([0.15, -0.1, 1.0]) / 6
"""Points of the plane satisfy PLANE @ x = 1."""
SQUARE = (0.3, 0.55, 0.2, 0.45)
"""Rows and columns, as shares of the frame, of what moves."""


@dataclass
class World:
    """Cameras (camera-to-world, OpenCV axes) and the lens at the size of the frames, first pixel's corner at (0, 0)."""

    T: np.ndarray
    K: np.ndarray
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def K_at(self, resized, top=0, left=0) -> np.ndarray:
        """K of frames that are resized, then cut."""
        K = self.K.copy()
        K[0] *= resized[1] / FRAME[1]
        K[1] *= resized[0] / FRAME[0]
        K[0, 2] -= left
        K[1, 2] -= top
        return K

    def depth(self, i, K, size) -> np.ndarray:
        """z-depth of the plane at the pixels of an image."""
        v, u = np.mgrid[: size[0], : size[1]] + 0.5
        rays = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)), -1) @ self.T[i, :3, :3].T
        return (1 - PLANE @ self.T[i, :3, 3]) / (rays @ PLANE)

    def image(self, i, resized, top=0, left=0, size=None) -> np.ndarray:
        whole = cv2.resize(self.frames[i], resized[::-1], interpolation=cv2.INTER_AREA)
        size = size or resized
        return whole[top : top + size[0], left : left + size[1]]

    def moving(self, resized, top=0, left=0, size=None) -> np.ndarray:
        """True in `SQUARE`."""
        size = size or resized
        v, u = np.mgrid[top : top + size[0], left : left + size[1]] + 0.5
        v, u = v / resized[0], u / resized[1]
        return (v > SQUARE[0]) & (v < SQUARE[1]) & (u > SQUARE[2]) & (u < SQUARE[3])


def make_world(n: int = N) -> World:
    rng = np.random.default_rng(5)
    t = np.linspace(0, 1, n)
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, 3] = np.stack((1.5 * t, 0.2 * np.sin(3 * t), 0.3 * t), axis=1)
    T[:, :3, :3] = Rotation.from_euler("yxz", np.stack((-0.2 * t, 0.05 * t, 0.03 * t), axis=1)).as_matrix()
    K = np.array([[300.0, 0, 181], [0, 300.0, 101], [0, 0, 1]])
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (900, 900, 3)).astype(np.float32), (0, 0), 2.5)
    texture = np.clip((texture - 127) * 6 + 127, 0, 255)
    world = World(T, K)
    frames = []
    for i in range(n):
        depth = world.depth(i, K, FRAME)
        v, u = np.mgrid[: FRAME[0], : FRAME[1]] + 0.5
        points = np.stack(((u - K[0, 2]) / K[0, 0] * depth, (v - K[1, 2]) / K[1, 1] * depth, depth), -1)
        points = points @ T[i, :3, :3].T + T[i, :3, 3]
        x, y = ((points[..., k] * 70 + 330).astype(np.float32) for k in (0, 1))
        frames.append(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.uint8))
    world.frames = np.stack(frames)
    return world


def inverse(T: np.ndarray) -> np.ndarray:
    return np.linalg.inv(T)


def xyzw(T: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(T[:, :3, :3]).as_quat()


def four(K: np.ndarray) -> list[float]:
    return [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]


def write_images(world: World, folder: Path) -> Path:
    """The clip itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(world.frames):
        Image.fromarray(frame).save(folder / f"{i:05d}.png")
    return folder


def write_mp4(world: World, path: Path, fps: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "8"})
        stream.height, stream.width, stream.pix_fmt = *FRAME, "yuv420p"
        for frame in world.frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path
