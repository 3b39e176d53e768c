"""Colours of video as 8-bit RGB of ordinary screens (BT.709), which is what is trained on and shown.

High dynamic range (PQ and HLG of BT.2100) and wide gamuts (BT.2020, Display P3) look washed out when their values are
taken for those of BT.709. They are turned into light, changed to the primaries of BT.709, and coded again for a
screen of gamma 2.4 (BT.1886). Light up to nine tenths of the reference white of 203 cd/m2 (BT.2408) keeps its value;
what is brighter is compressed towards white, all three channels by one factor, so that hues stay.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8, UInt16

REFERENCE_WHITE_NITS = 203.0
"""Where white paper lies in PQ and HLG, by ITU-R BT.2408."""

HLG_PEAK_NITS = 1000.0
"""Nominal peak of the display for which HLG's own system gamma is 1.2, by ITU-R BT.2100."""

KNEE = 0.9
"""Share of the reference white from which highlights are compressed."""

SCREEN_GAMMA = 2.4
"""ITU-R BT.1886."""

_PQ, _HLG = 16, 18
"""Numbers of the transfer characteristics in ITU-T H.273."""

_BT2020, _DCI_P3, _DISPLAY_P3 = 9, 11, 12
"""Numbers of the colour primaries in ITU-T H.273."""

_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    _DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    _DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""x and y of red, green and blue by H.273; white is taken as D65 for all (DCI's own white is that of a cinema)."""

_D65 = (0.3127, 0.3290)

_CODE_STEPS = 1 << 18
"""Entries of the table from light to 8-bit codes; the step between the darkest is 1.4 codes."""


class ColourSpace(NamedTuple):
    """What has to be known of a frame's colours."""

    transfer: int
    primaries: int

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (_PQ, _HLG)

    @property
    def needs_conversion(self) -> bool:
        return self.is_hdr or self.primaries in (_BT2020, _DCI_P3, _DISPLAY_P3)

    def __str__(self) -> str:
        transfer = {_PQ: "HDR (PQ)", _HLG: "HDR (HLG)"}.get(self.transfer, "SDR")
        primaries = {_BT2020: "BT.2020", _DCI_P3: "DCI-P3", _DISPLAY_P3: "Display P3"}.get(self.primaries, "BT.709")
        return f"{transfer}, {primaries} primaries"


def to_bt709(image: UInt16[np.ndarray, "h w 3"], space: ColourSpace) -> UInt8[np.ndarray, "h w 3"]:
    """Full-range R'G'B' of 16 bits in another colour space as R'G'B' of BT.709 in 8 bits.

    HLG is taken for a display of 1000 cd/m2. Values outside the gamut of BT.709 are clipped.
    """
    light = _light_table(space.transfer)[image]  # in units of the reference white; of the scene, for HLG
    if space.transfer == _HLG:
        luminance = light @ _luminance_weights(space.primaries)
        # BT.2100's opto-optical transfer function: scene light to light of the display
        light *= np.power(np.maximum(luminance, 1e-6), 0.2)[..., None] * (HLG_PEAK_NITS / REFERENCE_WHITE_NITS)
    light = light @ _primaries_to_bt709(space.primaries).T
    if space.is_hdr:
        largest = light.max(axis=-1, keepdims=True)
        over = np.maximum(largest - KNEE, 0.0)
        compressed = KNEE + (1 - KNEE) * over / (over + (1 - KNEE))
        light *= np.where(over > 0, compressed / np.maximum(largest, KNEE), 1.0).astype(np.float32)
    index = (light.clip(0, 1) * (_CODE_STEPS - 1) + 0.5).astype(np.int32)
    return _code_table()[index]


@cache
def _light_table(transfer: int) -> Float[np.ndarray, "65536"]:
    """Light of each 16-bit code, linear."""
    code = np.arange(65536) / 65535.0
    if transfer == _PQ:  # SMPTE ST 2084, equation 4.1
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = code ** (1 / m2)
        light = 10000.0 / REFERENCE_WHITE_NITS * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    elif transfer == _HLG:  # inverse OETF of BT.2100, table 5
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        light = code**SCREEN_GAMMA
    return light.astype(np.float32)


@cache
def _code_table() -> UInt8[np.ndarray, "_"]:
    light = np.arange(_CODE_STEPS) / (_CODE_STEPS - 1)
    return np.round(255 * light ** (1 / SCREEN_GAMMA)).astype(np.uint8)


def _rgb_to_xyz(primaries: int) -> Float[np.ndarray, "3 3"]:
    """Matrix from linear RGB to CIE XYZ (SMPTE RP 177)."""

    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1.0, (1 - x - y) / y]

    columns = np.array([xyz(*point) for point in _CHROMATICITIES.get(primaries, _CHROMATICITIES[1])]).T
    return columns * np.linalg.solve(columns, np.array(xyz(*_D65)))


@cache
def _luminance_weights(primaries: int) -> Float[np.ndarray, "3"]:
    return _rgb_to_xyz(primaries)[1].astype(np.float32)


@cache
def _primaries_to_bt709(primaries: int) -> Float[np.ndarray, "3 3"]:
    return np.linalg.solve(_rgb_to_xyz(1), _rgb_to_xyz(primaries)).astype(np.float32)
