"""The user's own masks of what moves: matched to the frames, brought to their size, white = moving."""

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.video import images as pictures


def match_masks(paths: list[Path], names: tuple[str, ...], folder: Path) -> list[Path]:
    """The mask of each frame: by name (the suffix may differ), else by order when there are as many masks as frames.

    Frames of a video are called `frame_00001`, ... by their 1-based number in the whole video.

    Raises:
        ValueError: neither way works; the message names both counts.
    """
    by_stem = {path.stem: path for path in paths}
    missing = [name for name in names if Path(name).stem not in by_stem]
    if not missing:
        return [by_stem[Path(name).stem] for name in names]
    if len(missing) < len(names):
        raise ValueError(
            f"{folder} has no mask for {len(missing)} of the {len(names)} frames (first: {missing[0]}). Every frame "
            "needs one: an all-black picture where nothing moves."
        )
    if len(paths) != len(names):
        raise ValueError(
            f"{folder} holds {len(paths)} masks for {len(names)} frames, and no name fits (first mask: "
            f"{paths[0].name}, first frame: {names[0]}). Name the masks like the frames, or give one for each frame."
        )
    return paths


def read_masks(paths: list[Path], size: tuple[int, int], white_is_static: bool) -> Float[Tensor, "n h w"]:
    """Masks as `dynamic_prob` (1 where something moves) at `size` (height, width).

    Raises:
        ValueError: a mask has other proportions than the frames, or is no picture.
    """
    height, width = size
    masks = np.empty((len(paths), height, width), np.float32)
    for i, path in enumerate(paths):
        mask = pictures.read_mask(path)
        rows, columns = mask.shape
        # Frames may have been reduced; rounding a side to whole pixels then shifts the proportions by that much.
        fits = abs(columns * height - rows * width) <= max(rows, columns, height, width)
        if not fits:
            raise ValueError(
                f"mask {path} has {columns}x{rows} pixels and the frames {width}x{height}: the proportions differ. "
                "Masks must show the whole frame, upright."
            )
        if mask.shape != size:
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        masks[i] = 1 - mask if white_is_static else mask
    share = float(masks.mean())
    if share > 0.9 and white_is_static:
        raise ValueError(
            f"the masks leave {1 - share:.0%} of the pictures as static, and white is what is static there. Is white "
            "what moves in yours? Give their folder as --masks, without --masks-white-is-static."
        )
    if share > 0.9:
        raise ValueError(
            f"the masks say that {share:.0%} of the pictures moves. White must be what moves; if white is the static "
            "part in yours (nerfstudio's meaning), give --masks-white-is-static."
        )
    return torch.from_numpy(masks)
