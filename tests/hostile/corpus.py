# ruff: noqa: E402  (the tests of other rooms are put on the path first)
"""Every damaged or hostile input of the tests as one table: what is written, what reads it, and what it must say.

`CASES` names each by its kind and by what is wrong. Those that other test files try one by one are taken from there.
`attempt.py` tries a case in a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / room) for room in ("", "runs", "scene", "dataparser", "datasets", "predictor/network")]

import numpy as np
import torch
from hostile_scenes import HOSTILE, npy_header, png_header
from PIL import Image
from test_checkpoints import _code, _damage, state
from test_config_file import CHANGED, CODE, DAMAGED, GOOD, PLACES
from test_known_cameras import BAD
from tiny_network import TINY

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_cameras import FLIP, read_cameras
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.datasets.sintel import read_dpt
from das3r_ns.datasets.truth_files import read_poses
from das3r_ns.evaluation.unpack import unpack
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network, save_weights
from das3r_ns.runs.checkpoints import checkpoint_path, read_checkpoint, save_checkpoint
from das3r_ns.runs.config_file import read_config
from das3r_ns.scene import read_scene
from das3r_ns.video import read_clip

Read = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One input."""

    prepare: Callable[[Path], Read]
    """Writes it into a folder, whose file `executed` would be written by the code in it; returns what reads it."""
    message: str
    """Regular expression that the error's words must match."""


CASES: dict[str, Case] = {}


def add(kind: str, name: str, prepare: Callable[[Path], Read], message: str) -> None:
    assert f"{kind}: {name}" not in CASES
    CASES[f"{kind}: {name}"] = Case(prepare, message)


def file_case(kind: str, name: str, file: str, content: bytes, read: Callable[[Path], object], message: str) -> None:
    """A case that is one file."""

    def prepare(folder: Path) -> Read:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return lambda: read(path)

    add(kind, name, prepare, message)


# --- Scene folders ----------------------------------------------------------------------------------------------------


@cache
def _scene() -> dict[str, bytes]:
    """Files of a good scene folder."""
    import tempfile

    from test_scene import make_scene

    from das3r_ns.scene import write_scene

    with tempfile.TemporaryDirectory() as place:
        folder = write_scene(*make_scene(), Path(place) / "scene")
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _hostile_scene(name: str) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        scene = _fill(folder / "scene", _scene())
        HOSTILE[name][0](scene)
        return lambda: read_scene(scene)

    return prepare


for _name, (_, _message) in HOSTILE.items():
    add("scene", _name, _hostile_scene(_name), _message)


# --- Datasets with cameras --------------------------------------------------------------------------------------------


@cache
def _dataset() -> dict[str, bytes]:
    """Images and transforms.json as another program leaves them."""
    rng = np.random.default_rng(0)
    frames, files = [], {}
    for i in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(buffer, "PNG")
        files[f"images/{i:05d}.png"] = buffer.getvalue()
        T = np.eye(4)
        T[0, 3] = 0.1 * i
        frames.append({"file_path": f"images/{i:05d}.png", "transform_matrix": (T @ FLIP).tolist()})
    lens = {"fl_x": 60.0, "fl_y": 60.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    return {**files, "transforms.json": json.dumps({**lens, "frames": frames}).encode()}


def _changed_dataset(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        data = _fill(folder / "set", _dataset())
        content = json.loads((data / "transforms.json").read_text(encoding="utf-8"))
        change(content)
        (data / "transforms.json").write_text(json.dumps(content), encoding="utf-8")
        return lambda: read_inputs(data, PredictionOptions())

    return prepare


for _name, (_change, _message) in BAD.items():
    add(
        "dataset", _name, _changed_dataset(lambda content, change=_change: change(content["frames"][4])),
        f"images/00004.png.*{_message}",
    )  # fmt: skip
for _name, _content, _message in (
    ("nested deep", "[" * 100_000, "nested too deep|not valid JSON"),
    ("frames nested deep", '{"frames": [' + "[" * 50_000 + "]" * 50_000 + "]}", "nested too deep"),
    ("frames a dictionary", '{"frames": {"a": 1}}', "lists no frames"),
    ("frames of text", '{"frames": ["a"]}', "no file_path"),
    ("a path of a number", '{"frames": [{"file_path": 5}]}', "no file_path"),
    ("a number of 5000 digits", '{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ("a list", "[]", "holds a list"),
    ("half", '{"frames": [{"file_', "not valid JSON"),
):
    file_case(
        "dataset", _name, "set/transforms.json", _content.encode(),
        lambda path: read_inputs(path.parent, PredictionOptions()), _message,
    )  # fmt: skip


# --- COLMAP models ----------------------------------------------------------------------------------------------------


def _model() -> dict[str, bytes]:
    """A binary model of three images by hand: one PINHOLE camera, no points."""
    cameras = struct.pack("<QIiQQ4d", 1, 1, 1, 64, 48, 60.0, 60.0, 32.0, 24.0)
    images = struct.pack("<Q", 3)
    for i in range(3):
        images += struct.pack("<I7dI", i + 1, 1.0, 0, 0, 0, 0.1 * i, 0, 0, 1) + f"{i:05d}.png\0".encode()
        images += struct.pack("<Q", 0)
    return {"cameras.bin": cameras, "images.bin": images, "points3D.bin": struct.pack("<Q", 0)}


def _bytes_at(name: str, at: int, content: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        whole = bytearray(files[name])
        whole[at : at + len(content)] = content
        files[name] = bytes(whole)

    return change


def _model_case(name: str, change: Callable[[dict[str, bytes]], object], message: str) -> None:
    def prepare(folder: Path) -> Read:
        files = _model()
        change(files)
        model = _fill(folder / "sparse" / "0", files)
        return lambda: read_cameras(model)

    add("COLMAP", name, prepare, message)


for _file in ("cameras.bin", "images.bin"):
    _model_case(f"{_file} of 2^60 entries", _bytes_at(_file, 0, struct.pack("<Q", 2**60)), _file)
    _model_case(f"half of {_file}", lambda files, f=_file: files.update({f: files[f][: len(files[f]) // 2]}), _file)
    _model_case(f"{_file} empty", lambda files, f=_file: files.update({f: b""}), _file)
    _model_case(f"{_file} a pickle", lambda files, f=_file: files.update({f: pickle.dumps(print)}), _file)
    _model_case(f"{_file} missing", lambda files, f=_file: files.pop(f), "holds no cameras|cameras|images")
_model_case(
    "2^62 points in an image",
    _bytes_at("images.bin", len(_model()["images.bin"]) - 8, struct.pack("<Q", 2**62)),
    "images.bin",
)
_model_case("an unknown camera model", _bytes_at("cameras.bin", 12, struct.pack("<i", 999)), "cameras.bin")
_model_case("a camera of size 0", _bytes_at("cameras.bin", 16, struct.pack("<QQ", 0, 0)), "size|cameras.bin")
_model_case(
    "a focal length that is NaN", _bytes_at("cameras.bin", 32, struct.pack("<d", float("nan"))), "focal|nan|finite"
)
_model_case("a focal length of 0", _bytes_at("cameras.bin", 32, struct.pack("<d", 0.0)), "focal")
_model_case(
    "a rotation of zeros", _bytes_at("images.bin", 12, struct.pack("<4d", 0, 0, 0, 0)), "rotation|quaternion|finite"
)
_model_case("a position of infinity", _bytes_at("images.bin", 44, struct.pack("<d", float("inf"))), "finite|inf")
_model_case("an image of no camera", _bytes_at("images.bin", 68, struct.pack("<I", 77)), "77|camera")
_model_case(
    "a name without an end",
    lambda files: files.update({"images.bin": files["images.bin"].replace(b"\0" + struct.pack("<Q", 0), b"x")}),
    "images.bin",
)


# --- Settings of runs -------------------------------------------------------------------------------------------------

for _kind, _template in CODE.items():
    for _place, _form in PLACES.items():
        if (_kind, _place) == ("object with a private field", "key") or _form is None:
            continue

        def _config(folder: Path, template: str = _template, form: str = _form) -> Read:
            path = folder / "config.yml"
            path.write_text(form.format(code=template.format(mark=folder / "executed")), encoding="utf-8")
            return lambda: read_config(path)

        add("config", f"{_kind} as {_place}", _config, "config.yml, line 1: the tag !.*Nothing was loaded")
for _name, (_text, _message) in DAMAGED.items():
    _bytes = _text if isinstance(_text, bytes) else _text.encode()
    file_case("config", _name, "config.yml", _bytes, read_config, _message)
for _name, (_begins, _line, _message) in CHANGED.items():
    _text = "\n".join(
        _line if row.startswith(_begins) else row for row in GOOD.read_text(encoding="utf-8").splitlines()
    )
    file_case("config", f"impossible {_name}", "config.yml", _text.encode(), read_config, _message)


# --- Checkpoints ------------------------------------------------------------------------------------------------------

CODE_IN_CHECKPOINTS = (
    "eval", "os.system", "in the pipeline", "a module's own function", "numpy object array", "pickle alone",
    "legacy torch", "torchscript", "a whole module", "by name only",
)  # fmt: skip
DAMAGE_OF_CHECKPOINTS = (
    "empty", "half", "without its end", "one byte", "text", "another archive", "compressed", "pickle cut short",
    "storage missing", "a tensor as large as no memory", "not finite", "a list", "no step", "step is text",
    "pipeline is a list", "sparse", "nested", "a folder",
)  # fmt: skip


def _checkpoint(kind: str) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        path = checkpoint_path(folder, 9)
        if kind in CODE_IN_CHECKPOINTS:
            _code(kind, path, folder / "executed")
        else:
            save_checkpoint(state(4), folder, 4)
            _damage(kind, path)
        return lambda: read_checkpoint(path)

    return prepare


for _kind in CODE_IN_CHECKPOINTS:
    add("checkpoint", _kind, _checkpoint(_kind), r"holds code \(.*\); nothing was loaded")
for _kind in DAMAGE_OF_CHECKPOINTS:
    add("checkpoint", _kind, _checkpoint(_kind), r"step-000000009.ckpt (is|has|holds|was|cannot)")


# --- Weights ----------------------------------------------------------------------------------------------------------


class Runs:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _weights(change: Callable[[Path], object]) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        saved = save_weights(PairwiseNetwork(TINY), folder / "weights")
        change(saved)
        return lambda: load_network(saved)

    return prepare


def _shortened(kept: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:kept])

    return change


def _header(content: bytes, promised: int | None = None) -> Callable[[Path], object]:
    length = struct.pack("<Q", len(content) if promised is None else promised)
    return lambda folder: (folder / "model.safetensors").write_bytes(length + content)


for _kept in (0, 5, 1000, -64):
    add("weights", f"{_kept} bytes of them", _weights(_shortened(_kept)), "damaged or cut short")
add("weights", "a header of 2^60 bytes", _weights(_header(b"{}", 2**60)), "damaged or cut short")
TERABYTES = b'{"enc_norm.bias":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
add("weights", "a tensor beyond the file", _weights(_header(TERABYTES)), "damaged or cut")
add("weights", "a header that is no JSON", _weights(_header(b"{]")), "damaged or cut short")
add("weights", "no tensors", _weights(_header(b"{}")), "missing")
add("weights", "settings cut short", _weights(lambda f: (f / "config.json").write_text("{")), "damaged")
add("weights", "settings a list", _weights(lambda f: (f / "config.json").write_text("[]")), "config.json")
for _key, _value in (
    ("enc_depth", 10**9),
    ("dec_embed_dim", 10**12),
    ("enc_num_heads", 0),
    ("patch_size", -1),
    ("dec_depth", 1e400),
):
    add(
        "weights", f"settings with {_key} {_value}",
        _weights(lambda f, k=_key, v=_value: (f / "config.json").write_text(json.dumps({**TINY.to_hub(), k: v}))),
        f"config.json.*{_key}|infinity",
    )  # fmt: skip
add("weights", "no settings", _weights(lambda f: (f / "config.json").unlink()), "without config.json")


def _weights_with_code(whole: bool) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        path = folder / "last.pth"
        content = {"model": {"enc_norm.bias": torch.zeros(1)}, "args": Runs(folder / "executed")}
        if whole:
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(Runs(folder / "executed")))
        return lambda: load_network(path)

    return prepare


add("weights", "code in a training checkpoint", _weights_with_code(True), "Nothing was loaded")
add("weights", "a pickle alone", _weights_with_code(False), "Nothing was loaded|damaged")


# --- Archives ---------------------------------------------------------------------------------------------------------


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tgz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _unpacked(path: Path) -> object:
    return unpack([path], path.parent / "inside")


for _ending, _pack in (("zip", _zip), ("tgz", _tgz)):
    for _way in ("../executed", "/tmp/das3r-executed", "a/../../executed", "..\\executed", "C:\\executed"):
        file_case(
            "archive", f"{_ending} with {_way}", f"a.{_ending}", _pack({"fine.txt": b"1", _way: b"2"}), _unpacked,
            "leads out of its folder",
        )  # fmt: skip
    _whole = _pack({"a.bin": os.urandom(6000), "b.bin": os.urandom(6000)})
    for _share in (0.02, 0.5, 0.97):
        file_case(
            "archive", f"{_share} of a {_ending}", f"a.{_ending}", _whole[: int(_share * len(_whole))], _unpacked,
            "damaged|archive",
        )  # fmt: skip
file_case("archive", "text", "a.zip", b"<html>404</html>", _unpacked, "is damaged")
file_case("archive", "empty", "a.zip", b"", _unpacked, "archive|damaged|empty")


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
