"""Bring a clip to the size of the published protocol, images and truth alike, as a folder of its own.

The long side becomes 512 pixels and both sides are cropped around the middle to multiples of 16, as the published
network sees its input and as its renders were compared. Everything after works on this folder, so that no stage can
disagree with another about sizes. Masks are cropped like the images (the published code stretched those of Sintel).
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from das3r_ns.datasets import TruthClip, read_dynamic_mask, read_image, read_poses
from das3r_ns.datasets.truth_files import read_intrinsics
from das3r_ns.files.json_files import write_json
from das3r_ns.predictor.network.preprocess import Framing, framing
from das3r_ns.scene import written_whole


def prepare(clip: TruthClip, frames: Sequence[int], longest_side: int | None, folder: Path) -> TruthClip:
    """Write the chosen frames of a clip and their truth to `folder`; what lies there already for the same choice is
    used as it is.

    Args:
        longest_side: of the prepared images; None keeps the size (and crops nothing).
    Raises:
        TruthError: a file of the clip is missing or damaged.
    """
    choice = {"source": str(clip.folder), "name": clip.name, "frames": list(frames), "longest_side": longest_side}
    if (notes := _notes(folder)) is not None and notes["choice"] == choice:
        return prepared_clip(folder)
    chosen = clip.only(frames)
    assert chosen.images is not None
    first = read_image(chosen.images[0])
    size = (int(first.shape[0]), int(first.shape[1]))
    framed = Framing(size, size, (0, 0), size) if longest_side is None else framing(size, longest_side)
    with written_whole(folder) as temporary:
        masks = _write_frames(chosen, framed, temporary)
        if chosen.T_world_camera is not None:
            np.savetxt(temporary / "T_world_camera.txt", chosen.T_world_camera.reshape(-1, 16).numpy())
        if chosen.K is not None:
            np.savetxt(temporary / "K.txt", framed.K_to_network(chosen.K).reshape(-1, 9).numpy())
        write_json(temporary / "prepared.json", {"choice": choice, "masks": masks})
    return prepared_clip(folder)


def prepared_clip(folder: Path) -> TruthClip:
    """A prepared clip, read back. Unlike a truth folder of a user, it may lack the masks of single frames."""
    notes = _notes(folder)
    assert notes is not None, f"{folder} was not written by prepare"
    images = tuple(sorted((folder / "images").iterdir()))
    known = notes["masks"]
    poses, K = folder / "T_world_camera.txt", folder / "K.txt"

    def mask(i: int) -> Tensor | None:
        return read_dynamic_mask(folder / "dynamic_masks" / f"{i:05d}.png") if known[i] else None

    return TruthClip(
        name=notes["choice"]["name"],
        folder=folder,
        num_frames=len(images),
        images=images,
        dynamic_mask=mask if any(known) else None,
        clean=tuple(sorted((folder / "clean").iterdir())) if (folder / "clean").is_dir() else None,
        T_world_camera=read_poses(poses) if poses.is_file() else None,
        K=read_intrinsics(K, len(images)) if K.is_file() else None,
    )


def _notes(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_frames(clip: TruthClip, framed: Framing, folder: Path) -> list[bool]:
    """Write images, masks and clean images; returns which frames have a mask."""
    assert clip.images is not None
    for name in ("images", "dynamic_masks", "clean"):
        (folder / name).mkdir()

    def write(i: int) -> bool:
        assert clip.images is not None
        name = f"{i:05d}.png"
        _save(folder / "images" / name, resized_image(read_image(clip.images[i]), framed).numpy()[..., ::-1])
        if clip.clean is not None:
            _save(folder / "clean" / name, resized_image(read_image(clip.clean[i]), framed).numpy()[..., ::-1])
        mask = None if clip.dynamic_mask is None else clip.dynamic_mask(i)
        if mask is not None:
            small = _resized(mask.numpy().astype(np.uint8) * 255, framed, Image.Resampling.NEAREST)
            _save(folder / "dynamic_masks" / name, small)
        return mask is not None

    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(write, range(len(clip))))
    for name in ("dynamic_masks", "clean"):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
    return masks


def resized_image(image: UInt8[Tensor, "h w 3"], framed: Framing) -> UInt8[Tensor, "h2 w2 3"]:
    """An image as the protocol has it: Lanczos where it shrinks, bicubic where it grows, then cropped."""
    shrinks = framed.resized[0] < framed.image_size[0]
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return torch.from_numpy(_resized(image.numpy(), framed, kernel))


def _resized(values: np.ndarray, framed: Framing, kernel: Image.Resampling) -> np.ndarray:
    (top, left), (height, width) = framed.offset, framed.size
    if framed.resized != values.shape[:2]:
        values = np.asarray(Image.fromarray(values).resize((framed.resized[1], framed.resized[0]), kernel))
    return values[top : top + height, left : left + width].copy()


def _save(path: Path, image: np.ndarray) -> None:
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not encoded:
        raise OSError(f"could not encode {path}")
    path.write_bytes(data.tobytes())
