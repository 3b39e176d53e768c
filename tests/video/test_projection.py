"""Files that say of themselves that their frames are not flat views of one lens."""

import struct
import uuid
from pathlib import Path

import pytest
from ffmpeg_program import encode, ffmpeg, moving_frames, psnr

from das3r_ns.video import read_clip

X264 = "-c:v libx264 -preset ultrafast -crf 6 -pix_fmt yuv420p"

SPHERICAL = uuid.UUID("ffcc8263-f855-4a93-8814-587a02521fdd")
"""Box of Google's "Spherical Video V1" in the track."""


def mark_as_spherical(path: Path) -> None:
    """Put the box of a 360-degree video at the end of the track of an mp4 whose index lies behind its frames."""
    content = bytearray(path.read_bytes())
    fields = {"Spherical": "true", "Stitched": "true", "StitchingSoftware": "x", "ProjectionType": "equirectangular"}
    text = "".join(f"<GSpherical:{name}>{value}</GSpherical:{name}>" for name, value in fields.items()).encode()
    box = struct.pack(">I4s", 24 + len(text), b"uuid") + SPHERICAL.bytes + text
    moov, track = content.index(b"moov") - 4, content.index(b"trak") - 4
    assert content.index(b"mdat") < moov
    end = track + struct.unpack_from(">I", content, track)[0]
    for at in (moov, track):
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + len(box))
    content[end:end] = box
    path.write_bytes(content)


def test_a_360_degree_video(tmp_path):
    path = encode(tmp_path / "sphere.mp4", moving_frames(4), X264)
    assert len(read_clip(path)) == 4
    mark_as_spherical(path)
    with pytest.raises(ValueError, match=r"360-degree video \(equirectangular\).*v360=e:flat"):
        read_clip(path)


@pytest.mark.parametrize(
    ("name", "packing", "filter_name"),
    [("a.mp4", 3, "sbsl"), ("a.mp4", 4, "abl"), ("a.mkv", "left_right", "sbsl"), ("b.mkv", "top_bottom", "abl")],
)
def test_both_eyes_in_one_frame(tmp_path, name, packing, filter_name):
    option = "-x264-params frame-packing=" if name.endswith("mp4") else "-metadata:s:v stereo_mode="
    path = encode(tmp_path / name, moving_frames(4), f"{X264} {option}{packing}")
    with pytest.raises(ValueError, match=f"both eyes' views .*stereo3d={filter_name}:ml,sidedata=delete:STEREO3D"):
        read_clip(path)
    ffmpeg(["-i", str(path), "-vf", f"stereo3d={filter_name}:ml,sidedata=delete:STEREO3D", str(tmp_path / "o.mp4")])
    assert len(read_clip(tmp_path / "o.mp4")) == 4  # the command that the message names helps


def test_frames_of_one_eye_are_frames(tmp_path):
    path = encode(tmp_path / "mono.mkv", moving_frames(4), f"{X264} -metadata:s:v stereo_mode=mono")
    assert len(read_clip(path)) == 4


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_of_hevc_that_are_stored_as_frames(tmp_path, order):
    moments = moving_frames(16)
    woven = moments[::2].copy()
    rows = slice(1, None, 2) if order == "tff" else slice(0, None, 2)
    woven[:, rows] = moments[1::2, rows]
    coder = f"-c:v libx265 -preset ultrafast -crf 8 -x265-params log-level=none:interlace={order} -pix_fmt yuv420p"
    path = encode(tmp_path / "fields.mp4", woven, f"-vf setfield={order},separatefields {coder}")
    with pytest.raises(ValueError, match=r"stores each field as a frame.*weave=.*bwdif") as refused:
        read_clip(path)
    filters = str(refused.value).split("-vf ")[1].split()[0].replace("=top", "=top" if order == "tff" else "=bottom")
    ffmpeg(["-i", str(path), "-vf", filters, str(tmp_path / "o.mp4")])
    clip = read_clip(tmp_path / "o.mp4")  # the command that the message names helps
    assert (len(clip), clip.size) == (8, moments.shape[1:3])
    better = [psnr(a, b) for a, b in zip(clip.frames.numpy()[1:-1], moments[2:-2:2])]
    combed = [psnr(a, b) for a, b in zip(woven[1:-1], moments[2:-2:2])]
    assert min(better) > max(combed) + 1, (better, combed)
