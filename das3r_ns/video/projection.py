"""Frames that are not one whole view of one lens: 360-degree video, both eyes in one frame, fields stored as frames."""

import struct
from pathlib import Path

import av
from av.sidedata.sidedata import Type

from das3r_ns.video.orientation import side_data

_SPHERICAL = {0: ("equirectangular", "e"), 1: ("cubemap", "c6x1"), 3: ("half equirectangular", "he")}
"""AVSphericalProjection (libavutil/spherical.h) -> its name, and that of FFmpeg's filter v360."""

_PACKED = {
    1: ("side by side", "sbsl"),
    2: ("top and bottom", "abl"),
    4: ("in a checkerboard", "chl"),
    5: ("side by side", "sbsl"),
    6: ("in alternate rows", "irl"),
    7: ("in alternate columns", "icl"),
}
"""AVStereo3DType (libavutil/stereo3d.h) -> how both eyes share a frame, and its name in FFmpeg's filter stereo3d.
Frames of one eye (MV-HEVC's base view) are of other types."""


def check_projection(frame: av.VideoFrame, codec: str, path: Path) -> None:
    """See that a frame is one flat view, as cameras of every predictor have it.

    Args:
        codec: FFmpeg's name of it.
    Raises:
        ValueError: it is part of a sphere, holds the views of both eyes, or every second row of a view; the message
            has the command that helps.
    """
    # HEVC knows interlaced video as half frames only (pic_struct 1 and 2 of ITU-T H.265, table D.2).
    if codec == "hevc" and frame.interlaced_frame:
        raise ValueError(
            f"{path} stores each field as a frame of {frame.height} rows (interlaced HEVC), and frames must be whole. "
            "Rebuild them: ffmpeg -i IN -vf weave=first_field=top,bwdif=mode=send_frame OUT.mp4 (=bottom, should the "
            "result jerk)."
        )
    for data in side_data(frame):
        if data.type == Type.SPHERICAL and (spherical := _SPHERICAL.get(_first_number(data))):
            name, short = spherical
            raise ValueError(
                f"{path} is a 360-degree video ({name}), and frames must be flat views of one lens. Export a flat view "
                "from the camera's program, or cut one out: "
                f"ffmpeg -i IN -vf v360={short}:flat:h_fov=90:v_fov=60,sidedata=delete:SPHERICAL OUT.mp4"
            )
        if data.type == Type.STEREO3D and (packed := _PACKED.get(_first_number(data))):
            name, short = packed
            raise ValueError(
                f"{path} is a stereo video whose frames hold both eyes' views {name}, and frames must be views of one "
                f"lens. Keep one of them: ffmpeg -i IN -vf stereo3d={short}:ml,sidedata=delete:STEREO3D OUT.mp4"
            )


def _first_number(data: "av.sidedata.sidedata.SideData") -> int:
    """The enumeration with which both of FFmpeg's structures begin."""
    return struct.unpack_from("=i", memoryview(data))[0]  # pyright: ignore[reportArgumentType]
