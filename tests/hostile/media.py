"""Damaged and hostile videos, images, masks and ground truth."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from cases import Read, Runs, add, file_case
from hostile_scenes import npy_header, png_header
from PIL import Image
from scenes_and_runs import _dataset, _fill

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.datasets.sintel import read_dpt
from das3r_ns.datasets.truth_files import read_poses
from das3r_ns.video import read_clip

# --- Videos -----------------------------------------------------------------------------------------------------------


def _gif(width: int, height: int, count: int) -> bytes:
    header = b"GIF89a" + struct.pack("<HH", width, height) + bytes([0xF0, 0, 0]) + bytes(6)
    frame = b"\x21\xf9\x04\x04\x0a\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return header + count * frame + b";"


for _side, _count in ((65535, 4), (12000, 4), (9000, 3000)):
    file_case(
        "video", f"{_count} frames of {_side}", "bomb.gif", _gif(_side, _side, _count), read_clip,
        f"declares .*{_side}x{_side}",
    )  # fmt: skip
for _name, _text in {
    "concat": "ffconcat version 1.0\nfile v.mp4\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nv.mp4\n#EXT-X-ENDLIST\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": '<?xml version="1.0"?><!-- x --><MPD type="static"><BaseURL>v.mp4</BaseURL></MPD>',
    "pls": "[playlist]\nFile1=v.mp4\n",
}.items():
    for _ending in (".mp4", ".m3u8"):
        file_case(
            "video", f"{_name} called {_ending}", f"list{_ending}", _text.encode(), read_clip, f"{_name}.*never opened"
        )
for _name, _bytes in {
    "text": b"<html>404</html>" * 10,
    "empty": b"",
    "zeros": bytes(4096),
    "an MP4 of headers": struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom") + struct.pack(">I4s", 8, b"moov"),
    "an MP4 whose box has 2^40 bytes": struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"isom")
    + struct.pack(">I4sQ", 1, b"moov", 2**40),
    "an AVI cut off": b"RIFF\xff\xff\xff\xffAVI LIST",
    "a Matroska of nothing": b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
    "a pickle": pickle.dumps(Runs(Path("executed"))),
}.items():
    file_case("video", _name, "v.mp4", _bytes, read_clip, "v.mp4")
add("video", "a FIFO", lambda folder: (os.mkfifo(folder / "v.mp4"), lambda: read_clip(folder / "v.mp4"))[1], "a pipe")
add("video", "a device", lambda folder: lambda: read_clip(Path("/dev/zero")), "not a regular file|a device|device")
add(
    "video",
    "a link to itself",
    lambda folder: ((folder / "v.mp4").symlink_to("v.mp4"), lambda: read_clip(folder / "v.mp4"))[1],
    "v.mp4",
)


# --- Images -----------------------------------------------------------------------------------------------------------


def _images(content: bytes, ending: str = "png", count: int = 3) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        data = _fill(folder / "shots", {f"{i}.{ending}": content for i in range(count)})
        return lambda: read_clip(data)

    return prepare


def _tiff(width: int, height: int) -> bytes:
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (278, 4, height),
        (279, 4, 64),
    ]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, kind, value in entries:
        body += struct.pack("<HHII", tag, kind, 1, value)
    return (body + bytes(4)).ljust(300, b"\0")


def _jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@cache
def _png() -> bytes:
    return _dataset()["images/00000.png"]


add(
    "image",
    "a PNG that declares 60000",
    _images(png_header(60_000, 60_000)),
    "declares more pixels|cannot be read|no image",
)
add("image", "a JPEG that declares 65000", _images(_jpeg(65_000, 65_000), "jpg"), "declares more pixels|cannot be read")
add(
    "image",
    "a TIFF that declares 60000",
    _images(_tiff(60_000, 60_000), "tif"),
    "declares more pixels|cannot be read|not an image|0.tif",
)
add("image", "text", _images(b"<html>404</html>"), "0.png")
add("image", "empty", _images(b""), "0.png")
add("image", "a quarter of a PNG", _images(_png()[: len(_png()) // 4]), "png")
add("image", "a PNG with damage", _images(_png()[:200] + bytes(64) + _png()[264:]), "png")
add(
    "image",
    "FIFOs",
    lambda folder: (
        (folder / "s").mkdir(),
        os.mkfifo(folder / "s" / "0.png"),
        os.mkfifo(folder / "s" / "1.png"),
        lambda: read_clip(folder / "s"),
    )[3],
    "no images",
)
add(
    "image",
    "a PostScript program",
    _images(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(executed) (w) file closefile\n"),
    "0.png",
)
add(
    "image",
    "one of another size",
    lambda folder: (
        _images(_png())(folder),
        Image.new("RGB", (7, 5)).save(folder / "shots" / "1.png"),
        lambda: read_clip(folder / "shots"),
    )[2],
    "one size|7x5",
)
add(
    "image",
    "a text chunk of 64 MiB",
    _images(_png()[:33] + struct.pack(">I4s", 64 << 20, b"zTXt") + zlib.compress(bytes(1 << 20))),
    "png",
)


# --- Masks ------------------------------------------------------------------------------------------------------------


def _masks(content: bytes | np.ndarray) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        images = _fill(folder / "shots", {n.split("/")[1]: b for n, b in _dataset().items() if n.endswith("png")})
        (folder / "masks").mkdir()
        path = folder / "masks" / "00000.npy"
        if isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=True)
        else:
            path.write_bytes(content)
        return lambda: read_inputs(images, PredictionOptions(masks=folder / "masks"))

    return prepare


add("mask", "an array of objects", _masks(np.array([{}], object)), "cannot be read as an array")
add("mask", "NaN", _masks(np.full((48, 64), np.nan)), "not finite")
add("mask", "five numbers", _masks(np.zeros(5)), r"shape \(5,\)")
add("mask", "half a header", _masks(b"\x93NUMPY\x01\x00"), "cannot be read as an array")
add("mask", "a promised size", _masks(npy_header("(4800000, 6400000)", "<f8")), "cannot be read as an array")
add("mask", "a pickle", _masks(pickle.dumps(Runs(Path("executed")))), "cannot be read as an array")


# --- Ground truth -----------------------------------------------------------------------------------------------------

for _name, _bytes, _message in (
    ("empty", b"", "no Sintel file"),
    ("another tag", struct.pack("<fii", 1.0, 3, 2) + bytes(24), "no Sintel file"),
    ("20 bytes of 24", struct.pack("<fii", 202021.25, 3, 2) + bytes(20), "has 20 bytes of values where 24 are due"),
    ("a negative size", struct.pack("<fii", 202021.25, -3, 2), "cut off"),
    ("2^31 by 2^31", struct.pack("<fii", 202021.25, 2**31 - 1, 2**31 - 1), "0 bytes of values|cut off"),
):
    file_case("Sintel", _name, "a.dpt", _bytes, read_dpt, _message)
for _name, _text, _message in (
    ("empty", "", "holds no numbers"),
    ("three numbers", "1 2 3\n", "3 numbers a row; expected 16"),
    ("ragged", "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n", "line 2: 3 numbers, the lines before have 12"),
    ("NaN", "nan 0 0 0 0 1 0 0 0 0 1 0\n", "line 1: a value is not finite"),
    ("text", "1 0 x 0 0 1 0 0 0 0 1 0\n", "line 1: could not convert"),
    ("a quaternion of length 2", "0 1 2 3 0 0 0 2\n", "has length 2.000, not 1"),
):
    file_case("poses", _name, "poses.txt", _text.encode(), read_poses, _message)
