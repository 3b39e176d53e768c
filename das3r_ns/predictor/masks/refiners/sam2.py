"""SAM 2 (Ravi et al., 2024) prompted by the moving parts, carried through the video. Package and weights: Apache-2.0.

The surest moving regions become prompts (a box and a point deep inside); SAM 2 carries each object forwards and
backwards; what it does not cover yet prompts the next. An object that moves in hardly any frame was a wrong prompt and
is dropped. Long clips are taken in parts, since SAM 2 keeps all frames of a video in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.files.whole import temporary_folder
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.prompts.base import Box, Click, Pointed
from das3r_ns.runtime.progress import stage

MODEL = "facebook/sam2.1-hiera-large"
"""On the Hugging Face hub; fetched by the package itself at the first use, 0.9 GB."""
PART_FRAMES = 150
"""Frames that SAM 2 gets at once: 12.6 MB each."""
MAX_OBJECTS = 6
"""Objects prompted in a part of a clip."""
MIN_AREA = 0.001
"""Share of the image; smaller regions prompt nothing."""
MAX_COVERED_SHARE = 0.5
"""Share of a region that earlier objects must cover for it to prompt no more."""
MIN_MOTION = 0.4
"""Mean probability of motion within an object's masks, over the clip, below which it is dropped."""
REMAINING_SHARE = 0.45
"""What is left of the probability by motion where no object is: below one half, since SAM 2 knows where objects end,
but not nothing, since it segments no smoke and no shadows."""


@dataclass(frozen=True)
class MovingRegion:
    """A region of one frame to ask for."""

    frame: int
    pointed: Pointed
    """Its box, and a click on the pixel deepest inside."""
    region: Bool[np.ndarray, "h w"]


class Sam2Refiner:
    """Dynamic maps whose outlines are SAM 2's. Satisfies `Refiner`.

    Raises:
        ImportError: SAM 2 is not installed.
    """

    def __init__(self, model: str = MODEL) -> None:
        try:
            from sam2.sam2_video_predictor import SAM2VideoPredictor
        except ImportError as e:
            raise ImportError(
                "the mask refiner sam2 needs SAM 2: pip install 'das3r-ns[sam2]'. Without it, refiner salience (which "
                "is small) or refiner none makes the masks."
            ) from e
        self._load: Callable[..., Any] = SAM2VideoPredictor.from_pretrained
        self._model = model

    def __call__(
        self,
        dynamic_prob: Float32[np.ndarray, "n h w"],
        image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
        flow: FlowBetweenFrames,
        doubt: Float32[np.ndarray, "n"],
    ) -> Float32[np.ndarray, "n h w"]:
        """See `Refiner`. What motion is sure of prompts, so doubt needs no word here.

        Raises:
            OSError: the weights are neither on disk nor to be fetched.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predictor = self._load(self._model, device=device)
        refined = np.empty_like(dynamic_prob)
        n = len(dynamic_prob)
        with stage(f"SAM 2 on {n} frames", n) as bar:
            for start in range(0, n, PART_FRAMES):
                part = slice(start, min(start + PART_FRAMES, n))
                with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                    refined[part] = _refine_part(predictor, dynamic_prob[part], lambda i, s=start: image(s + i))
                bar.advance(part.stop - start)
        return refined


def next_prompt(dynamic_prob: Float32[np.ndarray, "n h w"], covered: Bool[np.ndarray, "n h w"]) -> MovingRegion | None:
    """The surest moving region of any frame that is not covered yet; None when nothing is left to ask for.

    A region is the surer the larger it is and the farther its pixels are above one half.
    """
    best, best_score = None, 0.0
    for i, probability in enumerate(dynamic_prob):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((probability > 0.5).astype(np.uint8))
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] < MIN_AREA * probability.size:
                continue
            region = labels == label
            score = float((probability[region] - 0.5).sum())
            if score > best_score and covered[i][region].mean() < MAX_COVERED_SHARE:
                best, best_score = (i, region, stats[label]), score
    if best is None:
        return None
    frame, region, stat = best
    # A border of zeros: a region that leaves the image is deepest inside it, not at its edge.
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), region.shape)
    left, top, width, height = (int(stat[k]) for k in range(4))
    rows, columns = region.shape
    box = Box(left / columns, top / rows, (left + width) / columns, (top + height) / rows)
    click = Click((float(column) + 0.5) / columns, (float(row) + 0.5) / rows)
    return MovingRegion(frame, Pointed(box, (click,)), region)


def _refine_part(
    predictor: Any, dynamic_prob: np.ndarray, image: Callable[[int], UInt8[np.ndarray, "H W 3"]]
) -> np.ndarray:
    covered = np.zeros(dynamic_prob.shape, bool)
    objects = np.zeros_like(dynamic_prob)
    first = next_prompt(dynamic_prob, covered)
    if first is None:
        return dynamic_prob
    height, width = image(0).shape[:2]
    needed = len(dynamic_prob) * height * width  # of JPEG files, rather more than less
    with temporary_folder("das3r-sam2-", needed, "the frames for SAM 2") as folder:
        # SAM 2 reads a folder of JPEG files that are numbered.
        for i in range(len(dynamic_prob)):
            frame = image(i)
            path = folder / f"{i:05d}.jpg"
            cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
        state = predictor.init_state(video_path=str(folder), offload_video_to_cpu=True)
        prompt: MovingRegion | None = first
        for _ in range(MAX_OBJECTS):
            if prompt is None:
                break
            found = _carry(predictor, state, prompt, (height, width), dynamic_prob.shape)
            predictor.reset_state(state)
            inside = found > 0.5
            if inside.any() and dynamic_prob[inside].mean() >= MIN_MOTION:
                objects = np.maximum(objects, found)
            covered |= inside
            covered[prompt.frame] |= prompt.region  # asked once, whatever the answer
            prompt = next_prompt(dynamic_prob, covered)
    return np.maximum(objects, np.float32(REMAINING_SHARE) * dynamic_prob)


def _carry(
    predictor: Any, state: Any, prompt: MovingRegion, image_size: tuple[int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """Probability of one object in every frame, at map resolution."""
    box, clicks = prompt.pointed.box, prompt.pointed.clicks
    predictor.add_new_points_or_box(
        state,
        frame_idx=prompt.frame,
        obj_id=1,
        points=np.stack([click.in_pixels(*image_size) for click in clicks]),
        labels=np.array([click.inside for click in clicks], np.int32),
        box=None if box is None else box.in_pixels(*image_size),
    )
    out = np.zeros(shape, np.float32)
    for reverse in (False, True):
        for frame, _, logits in predictor.propagate_in_video(state, start_frame_idx=prompt.frame, reverse=reverse):
            probability = torch.sigmoid(logits[0, 0].float()).cpu().numpy()
            out[frame] = cv2.resize(probability, shape[:0:-1], interpolation=cv2.INTER_AREA)
    return out
