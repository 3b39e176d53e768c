"""Damaged and hostile scene folders, datasets, COLMAP models, settings and checkpoints of runs."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cases import Read, add, file_case
from hostile_scenes import HOSTILE
from PIL import Image
from test_checkpoints import _code, _damage, state
from test_config_file import CHANGED, CODE, DAMAGED, GOOD, PLACES
from test_known_cameras import BAD

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_cameras import FLIP, read_cameras
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.runs.checkpoints import checkpoint_path, read_checkpoint, save_checkpoint
from das3r_ns.runs.config_file import read_config
from das3r_ns.scene import read_scene

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
