"""More of the corpus: masks, archives, edits of the masks, folders of clips.

Importing it adds to `corpus.CASES`.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus import Read, _dataset, _fill, _masks, _png, _scene, _tgz, add, file_case
from damaged_bytes import locked, npz, packed_by, spoiled, zip_of
from hostile_scenes import png_header
from PIL import Image

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.evaluation.batch.command import find_clips
from das3r_ns.evaluation.unpack import unpack
from das3r_ns.scene import read_scene

# --- Masks ------------------------------------------------------------------------------------------------------------


def _mask_file(name: str, content: bytes, message: str) -> None:
    """A case of one mask, of any kind of file, of the first image."""

    def prepare(folder: Path) -> Read:
        images = _fill(folder / "shots", {n.split("/")[1]: b for n, b in _dataset().items() if n.endswith("png")})
        _fill(folder / "masks", {name: content})
        return lambda: read_inputs(images, PredictionOptions(masks=folder / "masks"))

    add("mask", f"{name}, {len(content)} bytes", prepare, message)


def _float_tiff(value: float) -> bytes:
    buffer = io.BytesIO()
    values = np.zeros((48, 64), np.float32)
    values[8:20, 8:20], values[0, 0] = 1.0, value
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


def _broken_tiff(at: int) -> bytes:
    data = bytearray(_float_tiff(0.5))
    data[at : at + 12] = b"\xff" * 12
    return bytes(data)


def _png_with_exif(exif: bytes) -> bytes:
    import zlib

    chunk = b"eXIf" + exif
    return _png()[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + _png()[33:]


_STACK = npz(masks=np.zeros((48, 64), np.uint8))
_mask_file("00000.tif", _float_tiff(float("nan")), "not finite")
_mask_file("00000.tiff", _float_tiff(float("inf")), "not finite")
_mask_file("00000.npz", locked(_STACK), "00000.npz cannot be read")
_mask_file("00001.npz", packed_by(_STACK, 97), "00001.npz cannot be read")
_mask_file("00002.npz", packed_by(_STACK, 14), "00002.npz cannot be read")
_mask_file("00003.npz", packed_by(_STACK, 8), "00003.npz cannot be read")
_mask_file("00004.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 60) + b"(" * 60, "00004.npy cannot be read")
_mask_file("00005.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 10) + b"{'descr':\\", "00005.npy cannot be read")
_mask_file("00001.tif", _broken_tiff(8)[:60], "00001.tif")
for _at in (4, 10, 22, 34, 70):
    _mask_file(f"{_at:05d}.tif", _broken_tiff(_at), f"{_at:05d}.tif|belong|match|names|frame")
_mask_file("00001.png", _png_with_exif(b"II*\0\xff\xff\xff\xff" + b"\xff" * 30)[:150], "00001.png")
_mask_file("00002.webp", b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 60, "00002.webp")
_mask_file("00003.gif", b"GIF89a" + b"\xff" * 60, "00003.gif")
_mask_file("00004.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 60, "00004.jp2|holds no masks")
add("mask", "a record", _masks(np.zeros((48, 64), [("a", "u1")])), "type|numbers")
add("mask", "dates", _masks(np.zeros((48, 64), "datetime64[s]")), "type|numbers")


# --- Archives ---------------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> object:
    return unpack([path], path.parent / "inside")


def _sparse_tar() -> bytes:
    """A sparse file of 2^36 bytes."""
    member = tarfile.TarInfo("big")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398], header[398:410] = b"00000000000\0", b"00000000000\0"
    header[483:495] = b"1000000000000"[:12]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def _tar_with_pax(key: str, value: str) -> bytes:
    record = f" {key}={value}\n"
    length = len(record) + 1
    while len(str(length)) + len(record) != length:
        length = len(str(length)) + len(record)
    body = f"{length}{record}".encode()
    pax, member = tarfile.TarInfo("pax"), tarfile.TarInfo("a")
    pax.type, pax.size, member.size = tarfile.XHDTYPE, len(body), 3
    return pax.tobuf() + body.ljust(512, b"\0") + member.tobuf() + b"abc".ljust(512, b"\0") + bytes(1024)


for _name, _file, _content, _message in (
    ("encrypted", "a.zip", locked(zip_of({"a": b"1"})), "a.zip"),
    ("damaged within", "a.zip", spoiled(zip_of({"a": os.urandom(300)})), "a.zip is damaged"),
    ("packed in an unknown way", "a.zip", packed_by(zip_of({"a": b"1" * 99}), 97), "a.zip"),
    ("claiming LZMA", "a.zip", packed_by(zip_of({"a": b"1" * 99}), 14), "a.zip"),
    ("a name of 5000 letters", "a.zip", zip_of({"a" * 5000: b"1"}), "a.zip"),
    ("a name of 5000 letters, tar", "a.tgz", _tgz({"a" * 5000: b"1"}), "a.tgz"),
    ("a file that is a folder too", "a.zip", zip_of({"a": b"1", "a/b": b"2"}), "a.zip"),
    ("a file called .", "a.zip", zip_of({".": b"1"}), "a.zip"),
    ("a sparse file of 64 GiB", "a.tar", _sparse_tar(), "a.tar"),
    ("a sparse map of NaN", "a.tar", _tar_with_pax("GNU.sparse.map", "1,nan"), "a.tar"),
):
    file_case("archive", _name, _file, _content, _unpacked, _message)


# --- Edits of the masks -----------------------------------------------------------------------------------------------


def _edited(change: Callable[[dict[str, Any], Path], object]) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        scene = _fill(folder / "scene", _scene())
        names = json.loads(_scene()["predictor.json"])["names"]
        edits = {
            "format_version": 1, "names": names, "times_s": None, "undone": [],
            "done": [{"id": "a1", "tool": "brush", "moving": True, "frames": [0], "frame": 0}],
        }  # fmt: skip
        place = scene / "edits" / "a1"
        place.mkdir(parents=True)
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(place / "frame_00001.png")
        change(edits, place / "frame_00001.png")
        (scene / "edits" / "edits.json").write_text(json.dumps(edits))
        return lambda: read_scene(scene)

    return prepare


def _set(**changed: Any) -> Callable[[dict[str, Any], Path], object]:
    return lambda edits, layer: edits["done"][0].update(changed)


for _name, _change, _message in (
    ("a layer that declares 60000", lambda e, p: p.write_bytes(png_header(60_000, 60_000)), "frame_00001.png"),
    ("a layer that declares 30000", lambda e, p: p.write_bytes(png_header(30_000, 30_000)), "frame_00001.png"),
    ("a layer of text", lambda e, p: p.write_text("x"), "frame_00001.png is not an image"),
    ("a layer that is a FIFO", lambda e, p: (p.unlink(), os.mkfifo(p)), "a FIFO"),
    ("a layer outside", lambda e, p: (p.unlink(), p.symlink_to("/etc/passwd")), "leads out"),
    ("a layer that is gone", lambda e, p: p.unlink(), "is missing"),
    ("an id of a path", _set(id="../a1"), "id of the edit"),
    ("an id of capitals", _set(id="A1"), "id of the edit"),
    ("frames beyond the clip", _set(frames=[10**9]), "frames of the edit"),
    ("frames of truth values", _set(frames=[True]), "frames of the edit"),
    ("moving as text", _set(moving="yes"), "moving or whole_clip"),
    ("a click at infinity", _set(at=[float("inf"), 0]), "at of the edit"),
    ("a click of text", _set(at="ab"), "at of the edit"),
    ("two of one id", lambda e, p: e["done"].append(e["done"][0]), "two edits have one id"),
    ("a list", lambda e, p: e.update(done={"a": 1}), "done is not a list"),
    ("no version", lambda e, p: e.pop("format_version"), "format None"),
    ("times backwards", lambda e, p: e.update(times_s=list(range(len(e["names"]), 0, -1))), "times_s"),
    ("times of NaN", lambda e, p: e.update(times_s=[float("nan")] * len(e["names"])), "times_s"),
    ("names of numbers", lambda e, p: e.update(names=[1, 2]), "names is not a list"),
):
    add("edits", _name, _edited(_change), _message)


# --- Folders of clips -------------------------------------------------------------------------------------------------


add("batch", "only FIFOs", lambda f: (os.mkfifo(f / "a.mp4"), lambda: find_clips(f))[1], "holds neither videos")
add(
    "batch", "a link to itself", lambda f: ((f / "a").symlink_to("a"), lambda: find_clips(f))[1], "holds neither videos"
)
add(
    "batch", "two names that are one", lambda f: (_fill(f, {"a.mp4": b"", "a.mov": b""}), lambda: find_clips(f))[1],
    "one name|holds",
)  # fmt: skip
