"""What the values of masks mean: which of them say that something is there.

Nobody agrees on how a mask is stored. Black and white, 0 and 1, object numbers, palettes, colours on black, 16-bit
instance numbers, a cut-out whose alpha channel is the mask, probabilities, logits: all of them are met. How a set of
masks is to be read is found out from the whole set, because single frames mislead: a frame with object 1 alone looks
like 0 and 1, and an empty frame like anything.
"""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Shaped

MAX_LABEL = 32
"""A mask with no value above this holds object numbers, not brightness."""
MAX_PLAIN_VALUES = 4
"""So few different values are numbers of objects, however thin these are: soft edges have more."""
LOSSY_NOISE = 24
"""Grey levels by which strong compression changes a flat area near an edge."""
TOP_SHARE = 0.98
"""From this share of the largest value on, a pixel is white."""
FLAT_LABELS = 0.5
"""Share of the pixels between black and white that lie in flat areas, above which they are numbers of objects: of a
soft or compressed edge hardly any do."""
MAX_FEW_VALUES = 12
"""Up to so many values two equal pixels each way are a flat area too: small objects that overlap leave strips of
others, which have no middle, and a soft edge of one pixel has nothing of the kind."""
MAX_GREY_SHARE = 0.6
"""Share of pixels well between black and white above which an image is a photograph or a depth map, not a mask."""
FLAT_COLOURS = 0.5
"""Share of flat pixels below which a colour image is a photograph."""

Kind = Literal["flat", "soft", "colour", "alpha", "logits"]


class MaskError(ValueError):
    """A mask that cannot be understood. The message names the file and says what to do."""


@dataclass(frozen=True)
class Layer:
    """A mask as it is stored."""

    values: Shaped[np.ndarray, "h w *c"]
    """One channel, or three (RGB)."""
    alpha: Shaped[np.ndarray, "h w"] | None = None
    """0 transparent .. 255 opaque; None where there is no alpha channel."""
    lossy: bool = False
    """Compressed in a way that changes values (JPEG, video)."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return self.values.nbytes + (0 if self.alpha is None else self.alpha.nbytes)


@dataclass(frozen=True)
class Encoding:
    """How a set of masks is to be read."""

    kind: Kind
    top: float = 255.0
    """Value that means 1, of soft masks."""
    background: tuple[int, int, int] = (0, 0, 0)
    """Colour of what is not an object, where colours tell objects apart."""
    told: str | None = None
    """What to tell the user, where it is not plain black and white."""

    def decode(self, layer: Layer) -> Float32[np.ndarray, "h w"]:
        """1 where an object is (white), 0 elsewhere."""
        if self.kind == "alpha":
            return np.ones(layer.values.shape[:2], np.float32) if layer.alpha is None else _share(layer.alpha, 255.0)
        values = layer.values
        if self.kind == "colour":
            rgb = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
            distance = np.abs(rgb.astype(np.int32) - np.array(self.background)).max(axis=2)
            there = (distance > (2 * LOSSY_NOISE if layer.lossy else 0)).astype(np.float32)
        else:
            grey = grey_of(layer)
            if self.kind == "flat":
                there = (grey > (LOSSY_NOISE if layer.lossy else 0)).astype(np.float32)
            elif self.kind == "logits":
                there = (grey > 0).astype(np.float32)
            else:
                there = _share(grey, self.top)
        return there if layer.alpha is None else there * _share(layer.alpha, 255.0)


@dataclass
class Evidence:
    """What a set of masks shows about its encoding; filled mask by mask."""

    pixels: int = 0
    values: set[float] = field(default_factory=set)
    """Different grey values; no more are gathered once they are many."""
    smallest: float = 0.0
    largest: float = 0.0
    between: int = 0
    """Pixels that are neither black nor white."""
    between_flat: int = 0
    """Those of them that lie in a flat area."""
    between_blocks: int = 0
    """Those that lie in a block of 2x2 pixels of one value."""
    well_between: int = 0
    """Pixels far from both black and white."""
    fractional: bool = False
    """Some value is not a whole number."""
    lossy: bool = False
    coloured: int = 0
    """Pixels with colour."""
    colour_flat: int = 0
    """Pixels of colour images that lie in flat areas."""
    colour_pixels: int = 0
    black: int = 0
    white: int = 0
    corner_colours: dict[tuple[int, int, int], int] = field(default_factory=dict)
    transparent: int = 0
    """Pixels that are not opaque."""
    opaque_dark: int = 0
    opaque_bright: int = 0
    opaque: int = 0
    opaque_range: tuple[int, int] = (255, 0)
    """Smallest and largest value of any channel where it is opaque."""

    def add(self, layer: Layer) -> None:
        """Take a mask into account."""
        self.pixels += layer.values.shape[0] * layer.values.shape[1]
        self.lossy |= layer.lossy
        if layer.alpha is not None:
            self._add_alpha(layer)
        if layer.values.ndim == 3 and has_colour(layer):
            self._add_colour(layer)
        else:
            self._add_grey(layer)

    def _add_alpha(self, layer: Layer) -> None:
        assert layer.alpha is not None
        opaque = layer.alpha > 127
        self.transparent += int((layer.alpha < 250).sum())
        self.opaque += int(opaque.sum())
        if opaque.any():
            seen = layer.values[opaque]
            flat = seen.reshape(len(seen), -1)
            self.opaque_range = min(self.opaque_range[0], int(flat.min())), max(self.opaque_range[1], int(flat.max()))
            self.opaque_dark += int((flat.max(axis=1) <= 8).sum())
            self.opaque_bright += int((flat.min(axis=1) >= 247).sum())

    def _add_colour(self, layer: Layer) -> None:
        rgb = layer.values
        tolerance = LOSSY_NOISE if layer.lossy else 0
        self.colour_pixels += rgb.shape[0] * rgb.shape[1]
        self.coloured += int((np.ptp(rgb.astype(np.int32), axis=2) > tolerance).sum())
        self.colour_flat += int(_is_flat(rgb, tolerance).sum())
        self.black += int((rgb.max(axis=2) <= tolerance).sum())
        self.white += int((rgb.min(axis=2) >= 255 - tolerance).sum())
        for corner in (rgb[0, 0], rgb[0, -1], rgb[-1, 0], rgb[-1, -1]):
            r, g, b = (int(value) for value in corner)
            self.corner_colours[r, g, b] = self.corner_colours.get((r, g, b), 0) + 1

    def _add_grey(self, layer: Layer) -> None:
        grey = grey_of(layer)
        if layer.lossy:
            grey = np.where(grey <= LOSSY_NOISE, 0, grey)
        values, counts = _histogram(grey)
        largest = float(values[-1])
        self.smallest, self.largest = min(self.smallest, float(values[0])), max(self.largest, largest)
        if len(self.values) <= MAX_LABEL:
            self.values |= set(values.astype(float).tolist())
        self.fractional |= values.dtype.kind == "f" and bool((values % 1 != 0).any())
        top = _full_scale(largest, self.fractional)
        between = (values > 0) & (values < TOP_SHARE * top)
        self.between += int(counts[between].sum())
        if between.any():
            here = (grey > 0) & (grey < TOP_SHARE * top)
            self.between_flat += int((here & _is_flat(grey, 0)).sum())
            self.between_blocks += int((here & _in_block(grey)).sum())
        self.well_between += int(counts[(values > 0.1 * top) & (values < 0.9 * top)].sum())

    def encoding(self, name: str) -> Encoding:
        """How the masks seen so far are to be read.

        Args:
            name: of the masks, for messages.
        Raises:
            MaskError: they are photographs, or something else than masks.
        """
        if self.transparent and self._alpha_is_mask():
            return Encoding("alpha", told="the mask is in the alpha channel: what is opaque is masked")
        if self.coloured > 1e-3 * self.colour_pixels:
            return self._colours(name)
        if self.smallest < 0:
            return Encoding("logits", told="values below 0: taken for logits, what is above 0 is masked")
        top = _full_scale(self.largest, self.fractional)
        if self.fractional and self.largest <= 1:
            return self._soft(1.0, name)
        marked = sorted(self.values - {0.0})
        if len(marked) <= 1:
            return Encoding("flat")
        flat = self.between_blocks if len(marked) <= MAX_FEW_VALUES else self.between_flat
        is_flat = flat > FLAT_LABELS * self.between
        if self.largest <= MAX_LABEL or len(marked) <= MAX_PLAIN_VALUES or is_flat:
            if self.largest >= TOP_SHARE * top and not self.between_flat:
                return Encoding("flat")  # black and white, with a level or two at the edges
            shown = ", ".join(f"{value:g}" for value in marked[:3]) + (", ..." if len(marked) > 3 else "")
            return Encoding("flat", told=f"values {shown} are numbers of objects: all but 0 are masked")
        return self._soft(top, name)

    def _soft(self, top: float, name: str) -> Encoding:
        if self.well_between > MAX_GREY_SHARE * self.pixels:
            raise MaskError(
                f"{name}: {self.well_between / self.pixels:.0%} of the pixels are neither black nor white, as in a "
                "photograph or a depth map. Masks say where something moves: white there, black elsewhere."
            )
        return Encoding("soft", top)

    def _alpha_is_mask(self) -> bool:
        low, high = self.opaque_range
        if high - low <= 8 or not self.opaque:
            return True
        # Black and white strokes on a transparent layer: colour is the mask, and what was left out is black.
        both = min(self.opaque_dark, self.opaque_bright) > 0.01 * self.opaque
        return not (both and self.opaque_dark + self.opaque_bright > 0.95 * self.opaque)

    def _colours(self, name: str) -> Encoding:
        if self.colour_flat < FLAT_COLOURS * self.colour_pixels:
            raise MaskError(
                f"{name} look like photographs, not like masks (hardly any two neighbouring pixels have one colour). "
                "Masks say where something moves: white there, black elsewhere."
            )
        if self.black or self.white:
            background = (0, 0, 0) if self.black >= self.white else (255, 255, 255)
        else:
            background = max(self.corner_colours, key=lambda colour: self.corner_colours[colour])
        named = {(0, 0, 0): "black", (255, 255, 255): "white"}.get(
            background, f"the colour {background} of the corners"
        )
        return Encoding("colour", background=background, told=f"colours tell objects apart: all but {named} is masked")


def has_colour(layer: Layer) -> bool:
    """Whether a mask of three channels is more than grey stored thrice."""
    tolerance = LOSSY_NOISE if layer.lossy else 0
    coloured = np.count_nonzero(np.ptp(layer.values.astype(np.int32), axis=2) > tolerance)
    return coloured > (1e-3 * layer.values[..., 0].size if layer.lossy else 0)


def grey_of(layer: Layer) -> Shaped[np.ndarray, "h w"]:
    """The one channel of a mask without colour."""
    values = layer.values
    if values.ndim == 3:
        return values.max(axis=2)
    return values.astype(np.uint8) if values.dtype == bool else values


def _histogram(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a mask, ascending, and how many pixels have each."""
    if grey.dtype not in (np.uint8, np.uint16):
        return np.unique(grey, return_counts=True)
    # A hundred times as fast as sorting.
    bins = 256 if grey.dtype == np.uint8 else 65536
    counts = cv2.calcHist([np.ascontiguousarray(grey)], [0], None, [bins], [0, bins])[:, 0]
    values = np.flatnonzero(counts)
    return values, counts[values]


def _full_scale(largest: float, fractional: bool) -> float:
    if fractional and largest <= 1:
        return 1.0
    return next((float(top) for top in (255, 1023, 4095, 65535) if largest <= top), largest)


def _share(values: np.ndarray, top: float) -> Float32[np.ndarray, "h w"]:
    return np.clip(values.astype(np.float32) / top, 0, 1)


def _is_flat(values: np.ndarray, tolerance: int) -> np.ndarray:
    """Where all pixels of a 3x3 window have one value."""
    values = values.astype(np.float32)
    window = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(values, window) - cv2.erode(values, window)
    return (spread if spread.ndim == 2 else spread.max(axis=2)) <= tolerance


def _in_block(values: np.ndarray) -> np.ndarray:
    """Where a pixel and three of its neighbours are a square of one value."""
    corner = values[:-1, :-1]
    same = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    found = np.zeros(values.shape, bool)
    for dy in (0, 1):
        for dx in (0, 1):
            found[dy : dy + same.shape[0], dx : dx + same.shape[1]] |= same
    return found
