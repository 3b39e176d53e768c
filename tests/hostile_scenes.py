"""Scene folders that are damaged or meant to harm: what is done to a good one, and what the error must say.

`HOSTILE` maps a name to a function that changes a good scene folder of at least three frames, and to a regular
expression that the message of `SceneFolderError` must match. None may run code, read outside the folder, hang, or take
memory for what a header merely promises.
"""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

Damage = Callable[[Path], object]


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change a JSON file of the folder."""

    def damage(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


def frame(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the second frame of transforms.json."""
    return edit("transforms.json", lambda content: change(content["frames"][1]))


def pose(row: int, column: int, value: float) -> Damage:
    return frame(lambda f: f["transform_matrix"][row].__setitem__(column, value))


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Change the second frame's map."""

    def damage(folder: Path) -> None:
        path = folder / name / "frame_00002.npy"
        np.save(path, change(np.load(path)), allow_pickle=True)

    return damage


def value(name: str, number: float) -> Damage:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        values[2, 3] = number
        return values

    return array(name, change)


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    """An array file that promises `shape` and holds nothing."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def fifo(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def link(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def image(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        changed = make(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        path.write_bytes(cv2.imencode(".png", changed)[1].tobytes())

    return damage


def cut(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return damage


def ply(header: str, body: bytes = b"") -> Damage:
    return write("sparse_pc.ply", header.encode() + body)


def vertex(count: int, form: str = "binary_little_endian 1.0", more: str = "") -> str:
    return (
        f"ply\nformat {form}\nelement vertex {count}\nproperty float x\nproperty float y\nproperty float z\n"
        f"property uchar red\nproperty uchar green\nproperty uchar blue\n{more}end_header\n"
    )


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def pickled_depth(folder: Path) -> None:
    np.save(
        folder / "depth" / "frame_00002.npy", np.array([Bomb(folder.parent / "executed")], object), allow_pickle=True
    )


def pickle_file(folder: Path) -> None:
    (folder / "depth" / "frame_00002.npy").write_bytes(pickle.dumps(Bomb(folder.parent / "executed")))


def to_jpeg_of_other_size(folder: Path) -> None:
    Image.new("RGB", (7, 5)).save(folder / "images" / "frame_00002.png", "JPEG")


FRAME = "frame_00002"
OUT = "leads out of"

HOSTILE: dict[str, tuple[Damage, str]] = {
    # poses and lenses
    "pose with NaN": (pose(0, 3, float("nan")), f"{FRAME}.*holds nan, which is not finite"),
    "pose with infinity": (pose(1, 1, float("inf")), f"{FRAME}.*holds inf, which is not finite"),
    "pose with 1e300": (pose(2, 3, 1e300), rf"{FRAME}.*coordinate 1e\+300"),
    "rotation with 1e300": (pose(0, 0, 1e300), f"{FRAME}.*not a rotation"),
    "pose of zeros": (frame(lambda f: f.update(transform_matrix=np.zeros((4, 4)).tolist())), f"{FRAME}.*last row"),
    "rotation of zeros": (frame(lambda f: f.update(transform_matrix=np.zeros((3, 4)).tolist())), f"{FRAME}.*rotation"),
    "scaled pose": (
        frame(lambda f: f.update(transform_matrix=np.diag([2.0, 2, 2, 1]).tolist())),
        f"{FRAME}.*lengths 2, 2, 2",
    ),
    "mirrored pose": (
        frame(lambda f: f.update(transform_matrix=np.eye(4)[[1, 0, 2, 3]].tolist())),
        f"{FRAME}.*mirrored",
    ),
    "pose of text": (frame(lambda f: f.update(transform_matrix="identity")), f"{FRAME}.*transform_matrix"),
    "ragged pose": (frame(lambda f: f["transform_matrix"][0].pop()), f"{FRAME}.*4x4 numbers"),
    "pose of large numbers of digits": (frame(lambda f: f["transform_matrix"][0].__setitem__(0, 10**400)), FRAME),
    "no pose": (frame(lambda f: f.pop("transform_matrix")), f"{FRAME}.*lacks 'transform_matrix'"),
    "focal length 0": (frame(lambda f: f.update(fl_x=0)), f"{FRAME}.*focal length is 0"),
    "focal length NaN": (frame(lambda f: f.update(fl_y=float("nan"))), f"{FRAME}.*fl_y is nan"),
    "negative focal length": (frame(lambda f: f.update(fl_x=-30.0)), f"{FRAME}.*focal length is -30"),
    "focal length 1e300": (frame(lambda f: f.update(fl_x=1e300)), f"{FRAME}.*does not fit an image"),
    "principal point far off": (frame(lambda f: f.update(cx=1e30)), f"{FRAME}.*principal point"),
    "focal length true": (frame(lambda f: f.update(fl_x=True)), f"{FRAME}.*not a number"),
    "focal length a list": (frame(lambda f: f.update(fl_x=[1])), f"{FRAME}.*not a number"),
    "size 0": (frame(lambda f: f.update(w=0)), f"{FRAME}.*not the size of an image"),
    "size -1": (frame(lambda f: f.update(h=-1)), f"{FRAME}.*not the size of an image"),
    "size 1e9": (frame(lambda f: f.update(w=1e9)), f"{FRAME}.*not the size of an image"),
    "size of another image": (frame(lambda f: f.update(w=64, h=48)), f"{FRAME}.* has 32x24 pixels.*says 64x48"),
    "applied transform with NaN": (
        edit("transforms.json", lambda c: c["applied_transform"][0].__setitem__(3, float("nan"))),
        "applied_transform holds nan",
    ),
    "applied transform of zeros": (
        edit("transforms.json", lambda c: c.update(applied_transform=np.zeros((3, 4)).tolist())),
        "applied_transform cannot be inverted",
    ),
    # paths
    "image outside": (frame(lambda f: f.update(file_path="../../secret.png")), OUT),
    "image at an absolute path": (frame(lambda f: f.update(file_path="/etc/passwd")), OUT),
    "image outside with backslashes": (frame(lambda f: f.update(file_path="..\\..\\secret.png")), OUT),
    "image a number": (frame(lambda f: f.update(file_path=5)), "frame 2 has no file_path"),
    "no image": (frame(lambda f: f.pop("file_path")), "frame 2 has no file_path"),
    "image a folder": (frame(lambda f: f.update(file_path="images")), "is a folder"),
    "depth outside": (frame(lambda f: f.update(depth_file_path="../depth.npy")), OUT),
    "mask outside": (frame(lambda f: f.update(mask_path="../../mask.png")), OUT),
    "mask a list": (frame(lambda f: f.update(mask_path=["a"])), "frame 2 has no mask_path"),
    "points outside": (edit("transforms.json", lambda c: c.update(ply_file_path="../points.ply")), OUT),
    "points a number": (edit("transforms.json", lambda c: c.update(ply_file_path=1)), "ply_file_path"),
    "image a link that leads out": (link("images/frame_00002.png", "/etc/hostname"), OUT),
    "depth a link that leads out": (link("depth/frame_00002.npy", "/dev/zero"), OUT),
    "image a link to itself": (
        link("images/frame_00002.png", "frame_00002.png"),
        "not the name of a file|cannot be opened|does not exist|no image",
    ),
    # JSON
    "transforms cut": (cut("transforms.json", 0.5), "not valid JSON"),
    "transforms a list": (write("transforms.json", b"[]"), "holds a list"),
    "transforms nested deep": (write("transforms.json", b'{"frames": ' + b"[" * 100_000), "too deep|not valid JSON"),
    "transforms of bytes": (write("transforms.json", bytes(range(256))), "not valid JSON"),
    "transforms empty": (write("transforms.json", b""), "not valid JSON"),
    "transforms a FIFO": (fifo("transforms.json"), "missing|FIFO"),
    "frames a dictionary": (edit("transforms.json", lambda c: c.update(frames={"a": 1})), "lists no frames"),
    "frames empty": (edit("transforms.json", lambda c: c.update(frames=[])), "lists no frames"),
    "frames of text": (edit("transforms.json", lambda c: c.update(frames=["a"] * 3)), "lists no frames"),
    "a frame more": (edit("transforms.json", lambda c: c["frames"].append(c["frames"][0])), "4 frames, predictor"),
    "names numbers": (edit("predictor.json", lambda c: c.update(names=[1, 2, 3])), "names is not a list of names"),
    "names too few": (edit("predictor.json", lambda c: c.update(names=["a"])), "Frames cannot be added"),
    "pose_known numbers": (edit("predictor.json", lambda c: c.update(pose_known=[1, 2, 3])), "pose_known"),
    "fps NaN": (edit("predictor.json", lambda c: c.update(fps=float("nan"))), "fps is nan"),
    "fps 0": (edit("predictor.json", lambda c: c.update(fps=0)), "fps is 0"),
    "fps text": (edit("predictor.json", lambda c: c.update(fps="fast")), "fps is 'fast'"),
    "times text": (edit("predictor.json", lambda c: c.update(times_s=["a", "b", "c"])), "times_s is not 3"),
    "times that go back": (edit("predictor.json", lambda c: c.update(times_s=[0, 2, 1])), "times_s is not 3"),
    "times too few": (edit("predictor.json", lambda c: c.update(times_s=[0.0])), "times_s is not 3"),
    "another format": (edit("predictor.json", lambda c: c.update(format_version=99)), "scene format 99"),
    "predictor nested deep": (write("predictor.json", b'{"a": ' + b"[" * 100_000), "too deep|not valid JSON"),
    # maps
    "depth with NaN": (value("depth", float("nan")), f"{FRAME}.*row 2, column 3 is nan"),
    "depth with infinity": (value("depth", float("inf")), f"{FRAME}.*is inf"),
    "negative depth": (value("depth", -2.5), f"{FRAME}.*holds -2.5"),
    "depth 1e30": (value("depth", 1e30), rf"{FRAME}.*holds 1e\+30"),
    "confidence with NaN": (value("confidence", float("nan")), f"confidence.{FRAME}.*is nan"),
    "negative confidence": (value("confidence", -1.0), f"confidence.{FRAME}.*holds -1"),
    "depth of three axes": (array("depth", lambda v: v[None]), f"{FRAME}.*not a map of numbers"),
    "depth of complex numbers": (array("depth", lambda v: v.astype(np.complex64)), f"{FRAME}.*not a map of numbers"),
    "depth of text": (array("depth", lambda v: v.astype("U8")), f"{FRAME}.*not a map of numbers"),
    "empty depth": (array("depth", lambda v: v[:0]), FRAME),
    "depth of another size": (array("depth", lambda v: v[:5, :5]), f"{FRAME}.*differ in size"),
    "depth larger than the image": (array("depth", lambda v: np.ones((4000, 4000), np.float32)), f"{FRAME}.*more than"),
    "depth that runs code": (pickled_depth, f"{FRAME}.*cannot be read as an array"),
    "depth a pickle": (pickle_file, f"{FRAME}.*cannot be read as an array"),
    "depth of a promised size": (
        write("depth/frame_00002.npy", npy_header("(4000000000, 4000000000)")),
        f"{FRAME}.*cannot be read as an array",
    ),
    "depth of a negative size": (write("depth/frame_00002.npy", npy_header("(-1, 5)")), FRAME),
    "depth with code in its header": (
        write("depth/frame_00002.npy", npy_header("__import__('os').mkdir('executed')")),
        f"{FRAME}.*cannot be read as an array",
    ),
    "depth without bytes": (write("depth/frame_00002.npy", b""), FRAME),
    "depth missing": (lambda folder: (folder / "depth/frame_00002.npy").unlink(), FRAME),
    "depth a FIFO": (fifo("depth/frame_00002.npy"), "is a FIFO"),
    "confidence a FIFO": (fifo("confidence/frame_00002.npy"), "is a FIFO"),
    # images
    "image missing": (lambda folder: (folder / "images/frame_00002.png").unlink(), f"{FRAME}.*missing"),
    "image of another size": (to_jpeg_of_other_size, f"{FRAME}.*7x5 pixels, and transforms.json says 32x24"),
    "image that promises a size": (write("images/frame_00002.png", png_header(60_000, 60_000)), FRAME),
    "image a FIFO": (fifo("images/frame_00002.png"), "is a FIFO"),
    "image of text": (write("images/frame_00002.png", b"text"), f"{FRAME}.*not an image"),
    "map that promises a size": (write("dynamic_prob/frame_00002.png", png_header(60_000, 60_000)), FRAME),
    "map in colour": (image("dynamic_prob/frame_00002.png", lambda m: np.dstack([m] * 3)), f"{FRAME}.*grey channel"),
    "map of another size": (image("dynamic_prob/frame_00002.png", lambda m: m[:4]), f"{FRAME}.*differ in size"),
    "map cut": (cut("dynamic_prob/frame_00002.png", 0.2), FRAME),
    "map a FIFO": (fifo("dynamic_prob/frame_00002.png"), "is a FIFO"),
    "mask a FIFO": (fifo("masks/frame_00002.png"), "is a FIFO"),
    "mask that promises a size": (write("masks/frame_00002.png", png_header(60_000, 60_000)), FRAME),
    "mask of another size": (image("masks/frame_00002.png", lambda m: m[:4]), f"masks.{FRAME}.*pixels"),
    # points
    "points cut": (cut("sparse_pc.ply", 0.95), "point cloud"),
    "points without a header": (write("sparse_pc.ply", b"\0" * 100), "point cloud"),
    "points promised": (ply(vertex(10**12)), "promises 1000000000000 points"),
    "points promised as text": (ply(vertex(10**9, "ascii 1.0")), "promises 1000000000 points"),
    "points with NaN": (
        ply(vertex(1), struct.pack("<3f3B", float("nan"), 0, 0, 1, 2, 3)),
        r"position of point 0 is \[nan",
    ),
    "points of an unknown frame": (
        ply(vertex(1, more="property int frame\n"), struct.pack("<3f3Bi", 0, 0, 0, 1, 2, 3, 7)),
        "frame of point 0 is 7",
    ),
    "points with staticness 5": (
        ply(vertex(1, more="property float staticness\n"), struct.pack("<3f3Bf", 0, 0, 0, 1, 2, 3, 5.0)),
        "staticness of point 0 is 5",
    ),
    "points without colours": (
        ply("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
            "end_header\n", b"0 0 0\n"),
        "point cloud",
    ),
    "points of another element": (ply("ply\nformat ascii 1.0\nelement face 0\nend_header\n"), "point cloud"),
    "points with lists": (
        ply(vertex(1, "binary_little_endian 1.0", "property list uint float x2\n"), b"\xff" * 64),
        "point cloud|position",
    ),
    "points a FIFO": (fifo("sparse_pc.ply"), "is a FIFO"),
    "points missing": (lambda folder: (folder / "sparse_pc.ply").unlink(), "sparse_pc.ply"),
}  # fmt: skip
