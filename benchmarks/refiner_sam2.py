"""Seconds that SAM 2 takes as refiner of the masks, on this machine, by the number of objects to carry.

    pip install '.[sam2]'
    python benchmarks/refiner_sam2.py                          # the large network, 40 frames of 854x480
    python benchmarks/refiner_sam2.py --network sam2.1_hiera_t --num-frames 3 --objects 1

The time does not depend on the weights: random ones are taken and nothing is fetched. Images are noise that moves;
six blocks that are said to move prompt it. Loading the network and a first run are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.masks.refiners import sam2

SIZE, MAP_SIZE = (480, 854), (243, 432)
"""Height and width of the clip and of its maps."""


@dataclass
class Options:
    """What to measure."""

    network: str = "sam2.1_hiera_l"
    """Name of one of SAM 2.1's configurations."""
    num_frames: int = 40
    """Frames of the clip. More than 150 are taken in parts."""
    objects: tuple[int, ...] = (1, 2, 6)
    """How many objects are carried, 6 at most."""


def main(options: Options) -> None:
    """Measure and print a table."""
    from sam2.build_sam import build_sam2_video_predictor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = build_sam2_video_predictor(f"configs/sam2.1/{options.network}.yaml", None, device=device)
    refiner = sam2.Sam2Refiner()
    refiner._load = lambda *_, **__: network
    frames, moving = clip(options.num_frames)
    flow = FlowBetweenFrames(lambda i: frames[i], MAP_SIZE, DisFlow())
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}\n")
    print("| objects carried | s a frame |\n|---|---|")
    for count, objects in enumerate((1, *options.objects)):
        sam2.MAX_OBJECTS = objects
        begin = time.perf_counter()
        refiner(moving, lambda i: frames[i], flow, np.zeros(len(moving), np.float32))
        seconds = (time.perf_counter() - begin) / options.num_frames
        if count > 0:  # kernels are chosen in the first run
            print(f"| {objects} | {seconds:.3f} |", flush=True)


def clip(num_frames: int) -> tuple[UInt8[np.ndarray, "n H W 3"], Float32[np.ndarray, "n h w"]]:
    """Images, and maps in which six blocks move."""
    noise = np.random.default_rng(0).uniform(0, 255, (SIZE[0], SIZE[1] + 3 * num_frames, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(noise, (0, 0), 2).clip(0, 255).astype(np.uint8)
    frames = np.stack([wide[:, 3 * i : 3 * i + SIZE[1]] for i in range(num_frames)])
    moving = np.zeros((num_frames, *MAP_SIZE), np.float32)
    for left in range(10, MAP_SIZE[1] - 60, 70):
        moving[:, 20:220, left : left + 40] = 0.9
    return frames, moving


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
