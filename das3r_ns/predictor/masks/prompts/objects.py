"""What becomes of the objects that the user named: found in each frame, followed through the clip, and moving or not.

In: the probability of motion, the images, flow. Out: the probability of motion with whole objects. Words say what an
object is, motion says whether it moves: an object that moves at some time counts as moving at all times, also while it
rests, and one that stands still throughout is part of the static scene (unless the mode says otherwise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from scipy.optimize import linear_sum_assignment

from das3r_ns.predictor.base import MovingPrompt
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.flow_maps import sample
from das3r_ns.predictor.masks.prompts.base import Instance, Segmenter, Words
from das3r_ns.runtime.progress import CONSOLE, stage

SAME_OBJECT = 0.3
"""Intersection over union of where flow carries an object and what is found there, from which they are one."""
SAME_INSTANCE = 0.7
"""The same of two masks in one frame, from which the surer one stands for both: a person and a man."""
MAX_MISSED_FRAMES = 5
"""Frames in a row in which an object may be overlooked and is still the same one when it is found again."""
MIN_AREA_PX = 12
"""Map pixels; smaller ones are not followed."""
MOVES = 0.4
"""Mean probability of motion within an object from which it moves in a frame."""
MOVES_FRAMES = 5
"""Frames in a row of which most must move for the object to: a single one is a false alarm of motion."""


@dataclass(frozen=True)
class _Region:
    """Share of each map pixel that an object covers, cut out: of a long clip there is no room for whole maps."""

    top: int
    left: int
    share: UInt8[np.ndarray, "rows columns"]
    """255 is all of it."""

    @staticmethod
    def of(share: Float32[np.ndarray, "h w"]) -> _Region | None:
        """None where too little is covered."""
        rows, columns = np.flatnonzero(share.max(axis=1) > 0), np.flatnonzero(share.max(axis=0) > 0)
        if (share > 0.5).sum() < MIN_AREA_PX:
            return None
        inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return _Region(int(rows[0]), int(columns[0]), np.round(255 * share[inside]).astype(np.uint8))

    @property
    def place(self) -> tuple[slice, slice]:
        rows, columns = self.share.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)

    def whole(self, size: tuple[int, ...]) -> Float32[np.ndarray, "h w"]:
        out = np.zeros(size, np.float32)
        out[self.place] = self.share / np.float32(255)
        return out


@dataclass
class FollowedObject:
    """One object through the clip."""

    label: str
    regions: dict[int, _Region] = field(default_factory=dict)
    """By frame; also of frames in which it was overlooked, between others in which it was found."""
    moves: bool = False

    def motion(self, dynamic_prob: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "m"]:
        """Mean probability of motion within the object in each of its frames."""
        out = []
        for i, region in sorted(self.regions.items()):
            weight = region.share.astype(np.float32)
            out.append(float((dynamic_prob[i][region.place] * weight).sum() / weight.sum()))
        return np.array(out, np.float32)


class PromptedObjects:
    """A stage of the masks of one clip: see the module. What was found is kept, for masks that are decided twice.

    Args:
        segmenter: answers the words.
    """

    def __init__(self, segmenter: Segmenter, prompt: MovingPrompt) -> None:
        self.segmenter, self.prompt = segmenter, prompt
        self._objects: list[FollowedObject] | None = None
        self.record: dict[str, Any] = {}
        """What was found, by class, after the call: for the scene's provenance."""

    def __call__(
        self,
        dynamic_prob: Float32[np.ndarray, "n h w"],
        image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
        flow: FlowBetweenFrames,
    ) -> Float32[np.ndarray, "n h w"]:
        """Probability of motion with the objects that were named.

        Args:
            image: RGB frame of any resolution.
            flow: at the resolution of the maps.
        """
        if self._objects is None:
            self._objects = self.follow(len(dynamic_prob), image, flow)
        for one in self._objects:
            one.moves = moves(one.motion(dynamic_prob))
        before, self.record = self.record, self._described(self._objects)
        for line in summary(self.record, self.prompt) if self.record != before else ():
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
        return combined(dynamic_prob, self._objects, self.prompt)

    def follow(
        self, num_frames: int, image: Callable[[int], UInt8[np.ndarray, "H W 3"]], flow: FlowBetweenFrames
    ) -> list[FollowedObject]:
        """All objects of the named classes."""
        size, words = flow.map_size, [Words(text) for text in self.prompt.classes]
        ended: list[FollowedObject] = []
        followed: list[_Followed] = []
        with stage(f"{', '.join(self.prompt.classes)} in {num_frames} frames", num_frames) as bar:
            for i in range(num_frames):
                found = _distinct(self.segmenter(image(i), words), size)
                followed = [one for one in followed if one.carry(i, flow) or ended.append(one.object)]
                matched = _matched(followed, found)
                for k, (label, share) in enumerate(found):
                    one = matched.get(k)
                    if one is None:
                        one = _Followed(FollowedObject(label), share)
                        followed.append(one)
                    one.found_in(i, share)
                bar.advance()
        return [*ended, *(one.object for one in followed)]

    def _described(self, objects: list[FollowedObject]) -> dict[str, Any]:
        of_class = {text: [one for one in objects if one.label == text] for text in self.prompt.classes}
        return {
            text: {
                "frames": len({i for one in found for i in one.regions}),
                "objects": len(found),
                "moving": sum(one.moves for one in found),
            }
            for text, found in of_class.items()
        }


class _Followed:
    """An object while the clip is walked through."""

    def __init__(self, of: FollowedObject, share: Float32[np.ndarray, "h w"]) -> None:
        self.object, self.share = of, share
        self._missed: dict[int, _Region] = {}

    def carry(self, i: int, flow: FlowBetweenFrames) -> bool:
        """Take the object along the flow to frame i; False when it is not followed any farther."""
        self.share = sample(self.share, flow(i, i - 1))
        region = _Region.of(self.share) if len(self._missed) < MAX_MISSED_FRAMES else None
        if region is None:
            return False
        self._missed[i] = region
        return True

    def found_in(self, i: int, share: Float32[np.ndarray, "h w"]) -> None:
        region = _Region.of(share)
        assert region is not None
        self.object.regions |= {**self._missed, i: region}
        self.share, self._missed = share, {}


def _distinct(found: list[Instance], size: tuple[int, int]) -> list[tuple[str, Float32[np.ndarray, "h w"]]]:
    """Label and share of each map pixel of the instances, the surest first, none of them twice."""
    kept: list[tuple[str, np.ndarray]] = []
    for one in sorted(found, key=lambda instance: -instance.score):
        share = cv2.resize(one.mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        if _Region.of(share) is not None and all(_overlap(share, other) < SAME_INSTANCE for _, other in kept):
            kept.append((one.label, share))
    return kept


def _matched(followed: list[_Followed], found: list[tuple[str, np.ndarray]]) -> dict[int, _Followed]:
    """The object that each instance is, by its index; those of an object that is new are left out. Labels need not
    agree: a network that takes a dog for a cat in one frame has seen the same animal."""
    if not followed or not found:
        return {}
    overlap = np.array([[_overlap(one.share, share) for _, share in found] for one in followed])
    pairs = zip(*linear_sum_assignment(-overlap))
    return {int(k): followed[o] for o, k in pairs if overlap[o, k] >= SAME_OBJECT}


def _overlap(a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """Intersection over union."""
    union = float(np.maximum(a, b).sum())
    return float(np.minimum(a, b).sum()) / union if union > 0 else 0.0


def moves(motion: Float32[np.ndarray, "m"]) -> bool:
    """Whether an object moves at some time.

    Args:
        motion: mean probability of motion within it, frame by frame.
    """
    window = min(MOVES_FRAMES, len(motion))
    around = np.lib.stride_tricks.sliding_window_view(motion, window)
    return bool(np.median(around, axis=1).max() >= MOVES)


def combined(
    dynamic_prob: Float32[np.ndarray, "n h w"], objects: list[FollowedObject], prompt: MovingPrompt
) -> Float32[np.ndarray, "n h w"]:
    """Motion and objects as one probability.

    With `add`, all that moves and all of each object that moves; with `limit`, all of each object that moves, and of
    the others what moves of them (a wave of the hand); with `always`, all that moves and all objects.
    """
    size = dynamic_prob.shape[1:]
    out = dynamic_prob.copy()
    for i, frame in enumerate(out):
        named, whole = np.zeros(size, np.float32), np.zeros(size, np.float32)
        for one in objects:
            if (region := one.regions.get(i)) is not None:
                share = region.whole(size)
                np.maximum(named, share, out=named)
                if one.moves or prompt.mode == "always":
                    np.maximum(whole, share, out=whole)
        if prompt.mode == "limit":
            np.minimum(frame, named, out=frame)
        np.maximum(frame, whole, out=frame)
    return out


def summary(record: dict[str, Any], prompt: MovingPrompt) -> list[str]:
    """What was found, in lines for the user."""
    lines = []
    for text, found in record.items():
        if found["objects"]:
            objects = f"{found['objects']} object{'s' if found['objects'] > 1 else ''}"
            lines.append(f"Prompt: {text} in {found['frames']} frames, {objects}, of which {found['moving']} move.")
        else:
            lines.append(
                f"Prompt: {text} was found in no frame. Try another word, or --masks-prompt-threshold below "
                f"{prompt.threshold:g}."
            )
    if prompt.mode == "limit" and not any(found["objects"] for found in record.values()):
        lines.append("Prompt: as --masks-prompt-mode limit asks, nothing counts as moving then.")
    return lines
