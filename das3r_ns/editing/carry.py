"""A region through the whole clip, from the frame in which somebody pointed at it.

What moves (`carry_object`) is carried from frame to frame along the optical flow, and drawn anew in each by its
colours; where the mask has the object already, the mask's outline is taken, so that errors do not add up. What does not
move (`carry_false_region`) is carried along the flow as a place, and what is marked at that place is given back; what
was marked beside it and comes before it, such as a person who walks past, stays marked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy.ndimage import distance_transform_edt

from das3r_ns.editing.cutout import cut_out, dilate, erode, largest_part, parts_of
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.flow_maps import sample
from das3r_ns.predictor.masks.refiners.base import Refiner

BAND_SHARE = 0.012
"""Of the longer side: how far from where flow carries an outline the true one may lie."""
SEEN_PX = (1.5, 0.1)
"""Round-trip error up to which a pixel counts as followed: map pixels, plus this share of the flow's length."""
MIN_AREA_PX = 12
MIN_AREA_SHARE = 0.02
"""Of the area at the click: an object smaller than that has left."""
MAX_CHANGE = 1.25
"""By which factor the area may change by being drawn anew; beyond, the outline that flow carried is kept."""
MIN_MARKED_SHARE = 0.75
"""Share of an object that must be marked for the mask to have it. Below, the mask may lack half of it."""
MIN_INSIDE_SHARE = 0.85
"""Share of a part of the mask that must lie in the object for all of it to be the object."""
FOLLOWED_SHARE = 0.15
"""Of the object that flow must follow to the next frame for it to be the same object."""
MAX_DISTANCE = 0.75
"""Of its colours from those at the click (Hellinger, 0 to 1)."""
COLOUR_BINS = 8
SOFT_PX = 2.0
"""Standard deviation of the blur that makes a probability of an outline, for the refiner."""
WHOLE_PART = 0.5
"""Share of a marked part that must lie in the carried place for all of it to be given back."""
OTHER_SHARE = 0.05
"""Share of a marked part that belonged to something else before for the part to be divided."""

MIN_SPEED_PX = 0.8
"""Motion of the object that the camera does not explain, map pixels a frame, from which what stands still beside it is
told from it."""
BESIDE_BANDS = 4
"""How many bands around what moves something that moves as well is a part of it."""
STILL_SPEED = (0.35, 0.7)
"""Of the object's speed, and map pixels a frame: what is slower than both stands still."""

Moving = Callable[[int], Bool[np.ndarray, "h w"]]
"""What counts as moving in a frame."""


@dataclass
class Carried:
    """A region in every frame to which it could be followed."""

    layers: dict[int, Bool[np.ndarray, "h w"]] = field(default_factory=dict)
    """By frame, at the size of the maps; only where there is any of it."""
    first: int = 0
    last: int = 0
    """Frames up to which it was followed."""
    as_marked: set[int] = field(default_factory=set)
    """Frames whose mask had the object."""
    lost: tuple[str, str] = ("", "")
    """Why it was followed no farther, backwards and forwards in time; empty where the clip ends."""


def carry_object(
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    flow: FlowBetweenFrames,
    num_frames: int,
    frame: int,
    region: Bool[np.ndarray, "h w"],
    moving: Moving,
    on_frame: Callable[[], None] = lambda: None,
    speed: Callable[[int], Float32[np.ndarray, "h w"] | None] = lambda i: None,
) -> Carried:
    """An object that moves, in every frame.

    Args:
        image: RGB frame at the size of the flow.
        region: the object in `frame`.
        moving: as the masks are now.
        on_frame: called after each frame; what it raises ends the work.
        speed: motion in a frame that the camera does not explain, map pixels a frame; None where it is not known.
    """
    carried = Carried({frame: region}, frame, frame)
    colours = _colours(image(frame), region)
    band = max(2, round(BAND_SHARE * max(region.shape)))
    lost = []
    for step in (-1, 1):
        here, before, reason = region, frame, ""
        # What flow alone carried: what was drawn in addition must move as well, lest all that touches the object joins.
        since_click = region
        for i in _way(frame, step, num_frames):
            place, followed = _followed(here, before, i, flow)
            least = max(MIN_AREA_PX, MIN_AREA_SHARE * region.sum())
            if place.sum() < least:
                reason = f"left the image at frame {i + 1}"
                break
            since_click, _ = _followed(since_click, before, i, flow)
            still = _standing_still(speed(i), since_click & place) & ~since_click
            drawn = _drawn(image(i), place & ~still, band, still)
            marked = _as_marked(drawn, moving(i), band)
            drawn = drawn if marked is None else marked
            if followed < FOLLOWED_SHARE or _distance(colours, _colours(image(i), drawn)) > MAX_DISTANCE:
                reason = f"was lost at frame {i + 1}"
                break
            carried.layers[i] = here = drawn
            since_click &= drawn
            if marked is not None:
                carried.as_marked.add(i)
                since_click = marked
            carried.first, carried.last, before = min(carried.first, i), max(carried.last, i), i
            on_frame()
        lost.append(reason)
    carried.lost = (lost[0], lost[1])
    return carried


def carry_false_region(
    flow: FlowBetweenFrames,
    num_frames: int,
    frame: int,
    region: Bool[np.ndarray, "h w"],
    moving: Moving,
    on_frame: Callable[[], None] = lambda: None,
    speed: Callable[[int], Float32[np.ndarray, "h w"] | None] = lambda i: None,
) -> Carried:
    """What is wrongly marked as moving around a place, in every frame. Arguments as of `carry_object`."""
    carried = Carried({frame: region}, frame, frame)
    band = max(2, round(BAND_SHARE * max(region.shape)))
    lost = []
    for step in (-1, 1):
        # What else is marked: first as something that came from beside the place, then as what moves next to that.
        place, other, beside = region, moving(frame) & ~dilate(region, 1), np.zeros_like(region)
        before, reason = frame, ""
        for i in _way(frame, step, num_frames):
            marked, own = moving(i), speed(i)
            # What comes out from behind it leads back into it, but not there and back, and stands still.
            other = marked & _followed(other, before, i, flow)[0] & _seen(i, before, flow)
            other &= ~_standing_still(own, other & dilate(place, BESIDE_BANDS * band))
            beside = marked & _moving_beside(own, other, _followed(beside, before, i, flow)[0], band)
            apart = other | beside
            # The place goes on behind what comes before it, as its surroundings do.
            back = _filled_from_around(flow(i, before), dilate(apart, BESIDE_BANDS * band))
            place = sample(place.astype(np.float32), back) > 0.5
            if place.sum() < MIN_AREA_PX:
                reason = f"left the image at frame {i + 1}"
                break
            false = _false_part(marked, place, apart, band)
            if false.any():
                carried.layers[i] = false
            # The margin that stays marked around what comes before the place is no part of it, or it would grow into
            # the place by as much in every frame.
            other = marked & ~false & (other | ~dilate(place, band))
            place |= false
            carried.first, carried.last, before = min(carried.first, i), max(carried.last, i), i
            on_frame()
        lost.append(reason)
    carried.lost = (lost[0], lost[1])
    return carried


def _way(frame: int, step: int, num_frames: int) -> range:
    return range(frame + step, num_frames if step > 0 else -1, step)


def _followed(
    region: Bool[np.ndarray, "h w"], source: int, target: int, flow: FlowBetweenFrames
) -> tuple[Bool[np.ndarray, "h w"], float]:
    """Where flow brings a region in the next frame, and the share of it that flow leads there and back."""
    place = sample(region.astype(np.float32), flow(target, source)) > 0.5
    return place, float(_seen(target, source, flow)[place].mean()) if place.any() else 0.0


def _seen(target: int, source: int, flow: FlowBetweenFrames) -> Bool[np.ndarray, "h w"]:
    """Pixels of `target` that flow leads to `source` and back."""
    back, error = flow.checked(target, source)
    return error < SEEN_PX[0] + SEEN_PX[1] * np.linalg.norm(back, axis=-1)


def _moving_beside(
    speed: Float32[np.ndarray, "h w"] | None,
    other: Bool[np.ndarray, "h w"],
    before: Bool[np.ndarray, "h w"],
    band: int,
) -> Bool[np.ndarray, "h w"]:
    """What moves by itself near something that does, such as a limb that comes out from behind a body.

    Args:
        before: what did so in the frame before, carried along: it stays for as long as it moves.
    """
    if speed is None or not other.any():
        return before & ~other
    return (before | dilate(other, BESIDE_BANDS * band)) & (cv2.medianBlur(speed, 5) > MIN_SPEED_PX) & ~other


def _filled_from_around(
    flow: Float32[np.ndarray, "h w 2"], covered: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 2"]:
    """Flow of what lies behind the covered pixels: that of the nearest one that is not covered."""
    if not covered.any() or covered.all():
        return flow
    rows, columns = np.asarray(distance_transform_edt(covered, return_distances=False, return_indices=True))
    return flow[rows, columns]


def _standing_still(
    speed: Float32[np.ndarray, "h w"] | None, object_: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """What stands still in a frame in which the object moves; nothing where the object rests as well."""
    if speed is None or not object_.any():
        return np.zeros(object_.shape, bool)
    typical = float(np.median(speed[object_]))
    return (
        cv2.medianBlur(speed, 5) < min(STILL_SPEED[0] * typical, STILL_SPEED[1])
        if typical > MIN_SPEED_PX
        else speed < 0
    )


def _drawn(
    image: UInt8[np.ndarray, "h w 3"], place: Bool[np.ndarray, "h w"], band: int, still: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The object around a place with its outline by its colours, where they can tell."""
    inner = min(band, max(1, round(0.25 * np.sqrt(place.sum()))))
    found = largest_part(cut_out(image, erode(place, inner), dilate(place, band) & ~still, place), place)
    change = found.sum() / max(int(place.sum()), 1)
    return found if 1 / MAX_CHANGE < change < MAX_CHANGE else place


def _as_marked(
    region: Bool[np.ndarray, "h w"], marked: Bool[np.ndarray, "h w"], band: int
) -> Bool[np.ndarray, "h w"] | None:
    """The object as the mask has it; None where the mask lacks much of it."""
    if (region & marked).sum() < MIN_MARKED_SHARE * region.sum():
        return None
    count, labels = parts_of(marked, 4)
    held = np.bincount(labels[region], minlength=count)
    wholly = held > MIN_INSIDE_SHARE * np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    wholly[0] = False
    return (marked & region) | (wholly[labels] & dilate(region, 2 * band))


def _false_part(
    marked: Bool[np.ndarray, "h w"], place: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"], band: int
) -> Bool[np.ndarray, "h w"]:
    """What is marked at a place without reason.

    Args:
        other: what is marked and was marked as something else before.
    """
    near = dilate(place, band) & marked
    false = near & ~dilate(other, band)
    count, labels = parts_of(marked, 8)
    areas = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    in_place, of_other = (np.bincount(labels[m], minlength=count) / areas for m in (near, other))
    whole = (in_place >= WHOLE_PART) & (of_other < OTHER_SHARE)
    whole[0] = False
    return false | whole[labels]


def _colours(image: UInt8[np.ndarray, "h w 3"], region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "b"]:
    """Histogram of the colours of a region, of sum 1."""
    bins = (image[region].astype(int) * COLOUR_BINS) >> 8
    flat = (bins[:, 0] * COLOUR_BINS + bins[:, 1]) * COLOUR_BINS + bins[:, 2]
    histogram = np.bincount(flat, minlength=COLOUR_BINS**3).astype(np.float64)
    cube = cv2.GaussianBlur(histogram.reshape(COLOUR_BINS, -1), (0, 0), 0.7).ravel()
    return cube / max(cube.sum(), 1e-9)


def _distance(a: Float64[np.ndarray, "b"], b: Float64[np.ndarray, "b"]) -> float:
    """Hellinger distance of two histograms, 0 to 1."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(a * b).sum())))


def refined(
    carried: Carried,
    refiner: Refiner,
    image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
    flow: FlowBetweenFrames,
) -> Carried:
    """An object whose outlines are the refiner's, within a band around those that were carried; where the mask had the
    object, its outline stays.

    Args:
        image: RGB frame of any resolution.
    """
    frames = [i for i in sorted(carried.layers) if i not in carried.as_marked]
    if not frames:
        return carried
    first, count = frames[0], frames[-1] - frames[0] + 1
    empty = np.zeros(flow.map_size, bool)
    layers = [carried.layers.get(first + k, empty) for k in range(count)]
    soft = np.stack([cv2.GaussianBlur(layer.astype(np.float32), (0, 0), SOFT_PX) for layer in layers])
    found = refiner(soft, lambda k: image(first + k), _Part(flow, first), np.zeros(count, np.float32))
    band = max(2, round(BAND_SHARE * max(flow.map_size)))
    better = dict(carried.layers)
    for i in frames:
        layer = layers[i - first]
        inner = min(band, max(1, round(0.25 * np.sqrt(layer.sum()))))
        better[i] = ((found[i - first] > 0.5) & dilate(layer, band)) | erode(layer, inner)
    return replace(carried, layers={i: layer for i, layer in better.items() if layer.any()})


class _Part(FlowBetweenFrames):
    """Flow between frames of a clip, counted from its frame `first`."""

    def __init__(self, flow: FlowBetweenFrames, first: int) -> None:
        self.map_size, self.matcher = flow.map_size, None
        self._whole, self._first = flow, first

    def __call__(self, source: int, target: int) -> Float32[np.ndarray, "h w 2"]:
        return self._whole(self._first + source, self._first + target)


def between(
    layers: dict[int, Bool[np.ndarray, "h w"]], frame: int, flow: Callable[[int, int], Float32[np.ndarray, "h w 2"]]
) -> Bool[np.ndarray, "h w"] | None:
    """A layer for a frame that has none, from its nearest neighbours that have; None where they do not agree.

    Args:
        flow: from one frame to another.
    """
    earlier = max((i for i in layers if i < frame), default=None)
    later = min((i for i in layers if i > frame), default=None)
    if earlier is None or later is None:
        return None
    shares = [
        (abs(other - frame), sample(layers[other].astype(np.float32), flow(frame, other))) for other in (earlier, later)
    ]
    (d0, a), (d1, b) = shares
    return (a * d1 + b * d0) / (d0 + d1) > 0.5
