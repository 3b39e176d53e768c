"""A decoded frame as upright 8-bit RGB with square pixels: scaled, colours converted, transparency resolved, turned."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from das3r_ns.video.colour import ColourSpace, to_bt709
from das3r_ns.video.orientation import is_sideways, orientation, turned
from das3r_ns.video.transparency import over_white

_UNSPECIFIED, _BT2020 = 2, 9
"""Numbers of ITU-T H.273, for primaries and matrices alike."""


class Converter:
    """Decoded frames to upright 8-bit RGB of one size. Keeps the tables of the scaler from frame to frame."""

    def __init__(self, size: tuple[int, int]) -> None:
        """
        Args:
            size: height and width as seen.
        """
        self._size = size
        self._scaler = VideoReformatter()
        self.converted: ColourSpace | None = None
        """Colours that were converted to BT.709, if some were."""

    def __call__(
        self, frame: av.VideoFrame, keep_alpha: bool
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
        """RGB, and how opaque each pixel is (None if all of them are).

        Args:
            keep_alpha: leave the colours of transparent parts as they are stored. Else they are laid over white.
        """
        matrix = orientation(frame)
        height, width = self._size
        size = (width, height) if is_sideways(matrix) else (height, width)
        opaque = None
        if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
            frame, opaque = self._without_alpha(frame, keep_alpha)
            if opaque is not None:
                grey = av.VideoFrame.from_ndarray(np.ascontiguousarray(opaque), format="gray")
                opaque = turned(self._scaled(grey, size, "gray"), matrix)
        space = _colour_space(frame)
        if space.needs_conversion:
            self.converted = space
            matrix_of_luma = _BT2020 if frame.colorspace == _UNSPECIFIED and space.is_hdr else frame.colorspace
            image = to_bt709(self._scaled(frame, size, "rgb48le", matrix_of_luma), space)
        else:
            image = self._scaled(frame, size, "rgb24", frame.colorspace)
        return turned(image, matrix), opaque

    def _scaled(
        self, frame: av.VideoFrame, size: tuple[int, int], format_name: str, colorspace: int | None = None
    ) -> np.ndarray:
        scaled = self._scaler.reformat(
            frame,
            width=size[1],
            height=size[0],
            format=format_name,
            src_colorspace=colorspace,
            interpolation="AREA" if size[0] < frame.height else "BICUBIC",
        )
        return scaled.to_ndarray()

    def _without_alpha(
        self, frame: av.VideoFrame, keep_alpha: bool
    ) -> tuple[av.VideoFrame, UInt8[np.ndarray, "h w"] | None]:
        """The frame without transparency, and how opaque it was."""
        rgba = np.asarray(frame.reformat(format="rgba", src_colorspace=frame.colorspace).to_ndarray(), np.uint8)
        rgb, opaque = rgba[..., :3], rgba[..., 3]
        if int(opaque.min()) == 255:
            opaque = None
        elif not keep_alpha:
            rgb = over_white(rgb, opaque)
        flat = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return flat, opaque


def _colour_space(frame: av.VideoFrame) -> ColourSpace:
    space = ColourSpace(int(frame.color_trc), int(frame.color_primaries))
    # HDR and the matrices of BT.2020 are defined for its primaries only.
    implied = space.is_hdr or frame.colorspace in (_BT2020, _BT2020 + 1)
    return space._replace(primaries=_BT2020) if implied and space.primaries == _UNSPECIFIED else space
