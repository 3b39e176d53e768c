"""Frames that a program keeps among its numbers, as a clip."""

import cv2
import numpy as np
import torch

from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.reconstructions.types import FrameArray, Reconstruction
from das3r_ns.video.clip import Clip, check_count, check_frames, choose_frames, shrunk_size
from das3r_ns.video.config import VideoConfig
from das3r_ns.video.memory import check_memory_of_frames


def clip_of_array(reconstruction: Reconstruction, array: FrameArray, config: VideoConfig) -> tuple[Clip, ClipFrames]:
    """The frames that `config` chooses of those that a program kept.

    Raises:
        ValueError: they are too few, too large for the memory, or show nothing.
    """
    fps = array.fps or config.folder_fps
    times_s = tuple(i / fps for i in range(array.count))
    chosen = choose_frames(times_s, config)
    check_count(reconstruction.path, len(chosen), config, array.count / fps, fps)
    size = array.read(chosen[0]).shape[:2]
    target = shrunk_size((size[0], size[1]), config.longest_side)
    check_memory_of_frames(len(chosen), target, str(reconstruction.path))
    frames = np.empty((len(chosen), *target, 3), np.uint8)
    for k, i in enumerate(chosen):
        image = array.read(i)
        if image.shape[:2] != size:
            raise ValueError(f"{reconstruction.path}: image {i} differs in size from the first.")
        frames[k] = image if target == size else cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA)
    check_frames(frames, reconstruction.path)
    clip = Clip(
        torch.from_numpy(frames),
        fps * (len(chosen) - 1) / (chosen[-1] - chosen[0]),
        tuple(f"frame_{i + 1:05d}" for i in chosen),
        reconstruction.path,
        times_s=tuple(times_s[i] for i in chosen),
    )
    return clip, ClipFrames(tuple(chosen), array.count, times_s=times_s)
