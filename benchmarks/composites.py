"""Real footage with ground truth for everything: a recorded walk through a kitchen, with moving objects pasted in.

    python benchmarks/composites.py --clips ../shared/clips --out COMPOSITES         # all kinds
    das3r bench composited --data COMPOSITES --stages masks poses --longest-side None

Nothing moves in the walk, and its cameras are known, so whatever is laid over it is all that moves and the walk itself
is the true background. Objects are cut out of clips of DAVIS by their ground truth, or are the movers of the synthetic
world; they keep the motion that they have in their own image, where a camera follows them.

| kind | background | object |
|---|---|---|
| fast | every fourth frame | cut out, as large as in its clip |
| narrow | cropped to a field of view of 35 degrees, and enlarged | the same |
| far | every second frame | a third of its size |
| return | 150 frames of the walk there and back twice | two movers of the synthetic world |

Clips are written in the layout that `das3r bench` reads: images, clean, dynamic_masks, T_world_camera.txt, K.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import tyro
from jaxtyping import Float32, Float64, UInt8

from das3r_ns.scene import written_whole
from das3r_ns.synthetic import SyntheticConfig
from das3r_ns.synthetic.surfaces import trace
from das3r_ns.synthetic.world import Mover

Kind = Literal["fast", "narrow", "far", "return"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WALK_FOCAL_PX = 525.0
"""Of the recorded walk, which is 640 pixels wide."""
NARROW_DEG = 35.0
"""Field of view across the width."""
SUPERSAMPLING = 2

Layer = tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]
"""RGB (0 to 255) and how far it covers what lies behind, 0 to 1."""


@dataclass
class Options:
    """What to make."""

    clips: Path
    """Folder with `walk` (a video and T_world_camera.txt) and `davis/SEQUENCE/{images,dynamic_masks}`."""
    out: Path
    """Folder that gets one folder of each kind; kinds that lie there are left as they are."""
    kinds: tuple[Kind, ...] = KINDS
    """Which to make."""
    fast: str = "camel"
    """Sequence whose object is pasted into `fast`."""
    narrow: str = "blackswan"
    """Into `narrow`."""
    far: str = "goat"
    """Into `far`."""
    num_frames: int = 50
    """Of the kinds with an object that was cut out."""
    return_frames: int = 150
    """Of `return`."""


def there_and_back(steps: np.ndarray, count: int) -> np.ndarray:
    """Indices into `count` items that are walked through from the first to the last and back again, without end."""
    around = np.asarray(steps) % max(2 * count - 2, 1)
    return np.minimum(around, 2 * count - 2 - around) if count > 1 else np.zeros_like(around)


def covered(background: UInt8[np.ndarray, "h w 3"], layer: Layer) -> UInt8[np.ndarray, "h w 3"]:
    """An image with a layer over it."""
    colour, opacity = layer
    mixed = background + opacity[..., None] * (colour - background)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def cut_out(folder: Path, index: int, size: tuple[int, int], scale: float) -> Layer:
    """The object of one frame of a DAVIS sequence, on an image of `size` (height, width).

    Args:
        scale: 1 makes the frame as wide as the image. The frame's lower edge lies on the image's where it is no
            smaller, else the frame stands in the middle of it.
    """
    image, mask = (sorted((folder / kind).iterdir()) for kind in ("images", "dynamic_masks"))
    frame = cv2.imread(str(image[index]), cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
    opacity = (cv2.imread(str(mask[index]), cv2.IMREAD_GRAYSCALE) > 0).astype(np.float32)
    factor = scale * size[1] / frame.shape[1]
    width, height = round(frame.shape[1] * factor), round(frame.shape[0] * factor)
    # What lies around the object must not bleed into its outline when the frame is resized.
    weighted = cv2.resize(frame * opacity[..., None], (width, height), interpolation=cv2.INTER_AREA)
    share = cv2.resize(opacity, (width, height), interpolation=cv2.INTER_AREA)
    colour = weighted / np.maximum(share, 1e-3)[..., None]
    down = size[0] - height if scale >= 1 else (size[0] - height) // 2
    right = (size[1] - width) // 2
    placed = np.zeros((*size, 4), np.float32)
    rows, columns = slice(max(down, 0), down + height), slice(right, right + width)
    placed[rows, columns, :3] = colour[max(-down, 0) :]
    placed[rows, columns, 3] = share[max(-down, 0) :]
    return placed[..., :3], placed[..., 3]


def synthetic_movers(size: tuple[int, int], num_frames: int, seed: int = 0) -> Iterator[Layer]:
    """Two movers of the synthetic world before a camera that carries them along, frame by frame."""
    config = SyntheticConfig(height=size[0], width=size[1], seed=seed)
    rng = np.random.default_rng(seed)
    movers = [Mover(rng, config, number, (-1.0) ** number) for number in range(2)]
    h, w = (side * SUPERSAMPLING for side in size)
    focal = WALK_FOCAL_PX * size[1] / 640
    v, u = np.meshgrid(*((np.arange(side) + 0.5) / SUPERSAMPLING for side in (h, w)), indexing="ij")
    directions = np.stack(((u - size[1] / 2) / focal, (v - size[0] / 2) / focal, np.ones_like(u)), axis=-1)
    for i in range(num_frames):
        parts = [part for mover in movers for part in mover.at(4 * i / max(num_frames - 1, 1))]
        colour, depth = trace(parts, np.zeros(3), directions)
        hit = np.isfinite(depth).astype(np.float32)
        share = cv2.resize(hit, size[::-1], interpolation=cv2.INTER_AREA)
        weighted = cv2.resize(255 * colour * hit[..., None], size[::-1], interpolation=cv2.INTER_AREA)
        yield weighted / np.maximum(share, 1e-3)[..., None], share


@dataclass(frozen=True)
class Walk:
    """The recorded walk, read in the order of its frames."""

    folder: Path

    def cameras(self) -> Float64[np.ndarray, "n 4 4"]:
        """T_world_camera of every frame."""
        return np.loadtxt(self.folder / "T_world_camera.txt").reshape(-1, 4, 4)

    def frames(self, wanted: np.ndarray) -> dict[int, UInt8[np.ndarray, "h w 3"]]:
        """The wanted frames, RGB."""
        video = cv2.VideoCapture(str(next(self.folder.glob("*.mp4"))))
        left, found, index = set(map(int, wanted)), {}, 0
        while left:
            more, image = video.read()
            if not more:
                raise ValueError(f"the video in {self.folder} has {index} frames, number {min(left)} is wanted")
            if index in left:
                found[index] = np.ascontiguousarray(image[..., ::-1])
                left.discard(index)
            index += 1
        return found


def narrowed(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The middle of an image, `NARROW_DEG` wide, at the image's size."""
    (height, width), factor = image.shape[:2], narrow_factor(image.shape[1])
    shift = np.array([[factor, 0, (1 - factor) * (width - 1) / 2], [0, factor, (1 - factor) * (height - 1) / 2]])
    return cv2.warpAffine(image, shift, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def narrow_factor(width: int) -> float:
    """How much larger the focal length of `narrowed` images is."""
    focal = WALK_FOCAL_PX * width / 640
    return width / (2 * np.tan(np.radians(NARROW_DEG) / 2)) / focal


def make(kind: Kind, options: Options, folder: Path) -> None:
    """Write one clip into an empty folder."""
    walk = Walk(options.clips / "walk")
    cameras = walk.cameras()
    if kind == "return":
        steps = np.linspace(0, 4 * (len(cameras) - 1), options.return_frames)
        index = there_and_back(np.rint(steps).astype(int), len(cameras))
    else:
        index = np.arange(options.num_frames) * {"fast": 4, "narrow": 2, "far": 2}[kind]
        index = there_and_back(index, len(cameras))
    images = walk.frames(index)
    height, width = images[int(index[0])].shape[:2]
    focal = WALK_FOCAL_PX * width / 640 * (narrow_factor(width) if kind == "narrow" else 1)
    if kind == "return":
        layers = synthetic_movers((height, width), len(index))
    else:
        source = options.clips / "davis" / getattr(options, kind)
        among = len(list((source / "images").iterdir()))
        own = there_and_back(np.arange(len(index)), among)
        scale = 1 / 3 if kind == "far" else 1.0
        layers = (cut_out(source, int(k), (height, width), scale) for k in own)
    for name in ("images", "clean", "dynamic_masks"):
        (folder / name).mkdir()
    for i, (k, layer) in enumerate(zip(index, layers)):
        clean = images[int(k)] if kind != "narrow" else narrowed(images[int(k)])
        for name, image in (("images", covered(clean, layer)), ("clean", clean)):
            cv2.imwrite(str(folder / name / f"{i:05d}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), (layer[1] > 0.5).astype(np.uint8) * 255)
    np.savetxt(folder / "T_world_camera.txt", cameras[index].reshape(-1, 16), fmt="%.9f")
    np.savetxt(folder / "K.txt", [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], fmt="%.9f")


def main(options: Options) -> None:
    """Make what is missing, each clip whole or not at all."""
    for kind in options.kinds:
        if (options.out / kind).is_dir():
            print(f"{options.out / kind} is there already")
            continue
        with written_whole(options.out / kind) as folder:
            make(kind, options, folder)
        print(f"{options.out / kind}: {len(list((options.out / kind / 'images').iterdir()))} frames")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
