"""More of the corpus: what other programs wrote.

Importing it adds to `corpus.CASES`.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import Read, _png, add
from damaged_bytes import locked, npz, packed_by, spoiled, zip_of
from hostile_scenes import png_header
from PIL import Image

from das3r_ns.dataparser.reconstructions.table import read_reconstruction
from das3r_ns.dataparser.reconstructions.types import FrameArray

N = 3
T = np.tile(np.eye(4), (N, 1, 1))
T[:, 0, 3] = 0.1 * np.arange(N)
K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
QUATERNION = np.tile([0.0, 0, 0, 0, 0, 0, 1], (N, 1))


def used(path: Path) -> None:
    """Read a reconstruction and all that it holds."""
    found = read_reconstruction(path)
    assert found is not None, "no reader took it"
    for i in range(len(found)):
        if found.depth is not None:
            found.depth(i)
        if found.moving is not None:
            found.moving(i)
    if isinstance(found.frames, FrameArray):
        for i in range(found.frames.count):
            found.frames.read(i)


def folder_case(name: str, write: Callable[[Path], object], message: str, given: str = "") -> None:
    """A case of a folder that another program wrote.

    Args:
        given: the path in it that the user names; the folder itself when empty.
    """

    def prepare(folder: Path) -> Read:
        place = folder / "given"
        place.mkdir()
        write(place)
        return lambda: used(place / given)

    add("reconstruction", name, prepare, message)


# --- MegaSaM and DROID-SLAM -------------------------------------------------------------------------------------------

MEGASAM = {
    "images": np.zeros((N, 48, 64, 3), np.uint8), "depths": np.ones((N, 48, 64), np.float32), "intrinsic": K,
    "cam_c2w": T,
}  # fmt: skip


def _megasam(name: str, message: str, **changed: np.ndarray) -> None:
    folder_case(
        f"MegaSaM, {name}", lambda f: (f / "a.npz").write_bytes(npz(**{**MEGASAM, **changed})), message, "a.npz"
    )


_megasam("images of three dimensions", "images has the shape", images=np.zeros((48, 64, 3), np.uint8))
_megasam("images a number", "images has the shape", images=np.zeros((), np.uint8))
_megasam("depths of objects", "depths.*objects|depths has the shape", depths=np.full((N, 48, 64), None, object))
_megasam("images as text", "images holds", images=np.full((N, 48, 64, 3), "x"))
_megasam("a pose of infinity", "cam_c2w.*finite", cam_c2w=np.where(T == 1, np.inf, T))
DROID = {
    "poses": torch.from_numpy(QUATERNION), "intrinsics": torch.full((N, 4), 30.0),
    "disps": torch.ones(N, 6, 8), "images": torch.zeros(N, 3, 48, 64, dtype=torch.uint8), "tstamps": torch.arange(N),
}  # fmt: skip


def _droid(name: str, message: str, **changed: Any) -> None:
    folder_case(f"DROID-SLAM, {name}", lambda f: torch.save({**DROID, **changed}, f / "a.pth"), message, "a.pth")


_droid("sparse poses", "poses", poses=DROID["poses"].to_sparse())
_droid("poses that stand for 2^33 numbers", "poses", poses=torch.ones(1, 1).expand(1 << 30, 7))
_droid("disparities that stand for 2^40 numbers", "disps", disps=torch.ones(1, 1, 1).expand(N, 1 << 20, 1 << 18))
_droid("complex poses", "poses", poses=DROID["poses"].to(torch.complex64))
_droid("times that are NaN", "tstamps", tstamps=torch.full((N,), float("nan")))
_droid("two times of three", "tstamps", tstamps=torch.arange(2))
_droid("poses in 8 bits", "poses", poses=torch.zeros(N, 7).to(torch.float8_e5m2))
_droid("poses on no device", "poses|cannot be read", poses=torch.zeros(N, 7, device="meta"))
_droid("a list", "lacks 'poses'", poses=[1, 2, 3])


def _droid_folder(folder: Path) -> None:
    for name in ("poses", "intrinsics", "disps"):
        np.save(folder / f"{name}.npy", DROID[name].float().numpy())
    np.save(folder / "tstamps.npy", np.array([0.0, np.inf, 2.0]))


folder_case("DROID-SLAM, a time of infinity", _droid_folder, "tstamps")


# --- MonST3R, CUT3R, VGGT, Depth Anything 3 ---------------------------------------------------------------------------


def _monst3r(folder: Path, lenses: str | None = None) -> None:
    rows = "".join(f"{i} {0.1 * i} 0 0 1 0 0 0\n" for i in range(N))
    (folder / "pred_traj.txt").write_text(rows)
    (folder / "pred_intrinsics.txt").write_text(lenses or "60 0 32 0 60 24 0 0 1\n" * N)
    for i in range(N):
        np.save(folder / f"frame_{i:04d}.npy", np.ones((48, 64), np.float32))


def _monst3r_case(name: str, change: Callable[[Path], object], message: str) -> None:
    folder_case(f"MonST3R, {name}", lambda folder: (_monst3r(folder), change(folder)), message)


_monst3r_case("images that are FIFOs", lambda f: [os.mkfifo(f / f"frame_{i:04d}.png") for i in range(N)], "frame_0000")
_monst3r_case("masks that are FIFOs", lambda f: [os.mkfifo(f / f"dynamic_mask_{i}.png") for i in range(N)], "a FIFO")
_monst3r_case(
    "depth that is a FIFO", lambda f: ((f / "frame_0000.npy").unlink(), os.mkfifo(f / "frame_0000.npy")), "FIFO"
)
_monst3r_case("a path of a device", lambda f: (f / "conf_0.npy").symlink_to("/dev/zero"), "conf_0.npy is a device")
_monst3r_case(
    "masks that declare 60000",
    lambda f: (f / "dynamic_mask_0.png").write_bytes(png_header(60_000, 60_000)),
    "pixels|not an image",
)
_monst3r_case("images of text", lambda f: [(f / f"frame_{i:04d}.png").write_text("x") for i in range(N)], "frame_0000")


def _cut3r(folder: Path) -> None:
    for room in ("camera", "depth", "conf"):
        (folder / room).mkdir()
    for i in range(N):
        (folder / "camera" / f"{i:06d}.npz").write_bytes(npz(pose=T[i], intrinsics=K))
        for room in ("depth", "conf"):
            np.save(folder / room / f"{i:06d}.npy", np.ones((48, 64), np.float32))


def _cut3r_case(name: str, change: Callable[[Path], object], message: str) -> None:
    folder_case(f"CUT3R, {name}", lambda folder: (_cut3r(folder), change(folder)), message)


_cut3r_case("a camera of text", lambda f: (f / "camera" / "000002.npz").write_text("x"), "000002.npz")
_cut3r_case("a camera that is encrypted", lambda f: (f / "camera" / "000001.npz").write_bytes(
    locked(npz(pose=T[1], intrinsics=K))), "000001.npz")  # fmt: skip
_cut3r_case("depth that is gone", lambda f: (f / "depth" / "000001.npy").unlink(), "000001.npy")
_cut3r_case("confidence of another size", lambda f: np.save(f / "conf" / "000001.npy", np.ones((3, 3))), "000001.npy")


def _archive_case(tool: str, name: str, file: str, arrays: dict[str, np.ndarray], message: str) -> None:
    folder_case(f"{tool}, {name}", lambda f: (f / file).write_bytes(npz(**arrays)), message)


VGGT = {
    "extrinsic": T[:, :3], "intrinsic": np.tile(K, (N, 1, 1)), "depth": np.ones((N, 48, 64), np.float32),
    "depth_conf": np.ones((N, 48, 64), np.float32),
}  # fmt: skip
for _name, _changed, _message in (
    ("depth a number", {"depth": np.ones(())}, "depth has the shape"),
    ("cameras of no frame", {"extrinsic": np.ones((0, 3, 4)), "depth": np.ones((0, 4, 4))}, "shape"),
    ("confidence of other frames", {"depth_conf": np.ones((N + 1, 48, 64))}, "depth_conf"),
    ("images as text", {"images": np.full((N, 3, 48, 64), "a")}, "images"),
    ("intrinsics of complex numbers", {"intrinsic": np.tile(K, (N, 1, 1)) * 1j}, "intrinsic holds complex"),
):
    _archive_case("VGGT", _name, "predictions.npz", {**VGGT, **_changed}, _message)
DA3 = {"depth": VGGT["depth"], "extrinsics": T[:, :3], "intrinsics": VGGT["intrinsic"]}
for _name, _changed, _message in (
    ("depth of two dimensions", {"depth": np.ones((48, 64), np.float32)}, "depth has the shape"),
    ("extrinsics a number", {"extrinsics": np.ones(())}, "extrinsics"),
    ("images in floats", {"image": np.ones((N, 48, 64, 3), np.float32)}, "image holds"),
    ("records", {"intrinsics": np.zeros(N, [("a", "f8"), ("b", "O")])}, "intrinsics"),
):
    _archive_case("Depth Anything 3", _name, "results.npz", {**DA3, **_changed}, _message)


def _streaming(depth: np.ndarray) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "camera_poses.txt").write_text((" ".join(map(str, np.eye(4).ravel())) + "\n") * N)
        (folder / "intrinsic.txt").write_text("60 60 32 24\n" * N)
        (folder / "results_output").mkdir()
        (folder / "results_output" / "frame_0.npz").write_bytes(npz(depth=depth))

    return write


folder_case("Depth Anything 3, streamed depth of one row", _streaming(np.ones(5, np.float32)), "depth has the shape")
folder_case("Depth Anything 3, streamed depth a number", _streaming(np.ones((), np.float32)), "depth has the shape")
folder_case(
    "Depth Anything 3, streamed depth a volume", _streaming(np.ones((2, 3, 4), np.float32)), "depth has the shape"
)


# --- ViPE -------------------------------------------------------------------------------------------------------------


def _vipe(
    folder: Path, masks: bytes | None = None, phrases: bytes = b"1: person\n", depth: bytes | None = None
) -> None:
    for room in ("pose", "intrinsics", "mask", "depth"):
        (folder / room).mkdir()
    (folder / "pose" / "a.npz").write_bytes(npz(data=T, inds=np.arange(N)))
    (folder / "intrinsics" / "a.npz").write_bytes(npz(data=np.tile([60.0, 60, 32, 24], (N, 1)), inds=np.arange(N)))
    if masks is not None:
        (folder / "mask" / "a.zip").write_bytes(masks)
    (folder / "mask" / "a.txt").write_bytes(phrases)
    if depth is not None:
        (folder / "depth" / "a.zip").write_bytes(depth)


def _grey_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(buffer, "PNG")
    return buffer.getvalue()


MASKS = {f"{i:05d}.png": _grey_png() for i in range(N)}
for _name, _content, _message in (
    ("are encrypted", locked(zip_of(MASKS)), "00000.png.*cannot be read"),
    ("are packed in an unknown way", packed_by(zip_of(MASKS), 97), "00000.png.*cannot be read"),
    ("are damaged within", spoiled(zip_of(MASKS)), "00000.png.*cannot be read"),
    ("claim to be packed with LZMA", packed_by(zip_of(MASKS), 14), "00000.png.*cannot be read"),
    ("are JPEG in colour", zip_of({name: _png() for name in MASKS}), "channels"),
    ("are cut short", zip_of(MASKS)[:200], "a.zip"),
):
    folder_case(f"ViPE, masks that {_name}", lambda f, c=_content: _vipe(f, c), _message)
folder_case(
    "ViPE, depth of text", lambda f: _vipe(f, depth=zip_of({f"{i:05d}.exr": b"x" * 400 for i in range(N)})), "EXR"
)
EXR = struct.pack("<II", 20000630, 2) + b"channels\0chlist\0" + struct.pack("<I", 2**31 - 1)
folder_case(
    "ViPE, depth of a header alone", lambda f: _vipe(f, depth=zip_of({f"{i:05d}.exr": EXR for i in range(N)})), "EXR"
)


# --- Trajectories, phones ---------------------------------------------------------------------------------------------


def _wildgs(**arrays: np.ndarray) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "est_poses_full.txt").write_text("".join(f"{i} {i} 0 0 0 0 0 1\n" for i in range(N)))
        whole = {"timestamps": np.arange(N, dtype=float), "depths": np.ones((N, 6, 8), np.float32)}
        (folder / "video.npz").write_bytes(npz(**{**whole, **arrays}))

    return write


folder_case("WildGS-SLAM, times that are NaN", _wildgs(timestamps=np.full(N, np.nan)), "timestamps")
folder_case("WildGS-SLAM, depth of two dimensions", _wildgs(depths=np.ones((6, 8), np.float32)), "depths has the shape")
METADATA = {
    "poses": QUATERNION[:, [3, 4, 5, 6, 0, 1, 2]].tolist(), "K": K.T.ravel().tolist(), "w": 64, "h": 48, "dw": 8,
    "dh": 6, "fps": 30,
}  # fmt: skip


def _r3d(name: str, message: str, files: dict[str, bytes] | None = None, **changed: Any) -> None:
    content = json.dumps({**METADATA, **changed}).encode()
    inside = {"metadata": content, **{f"rgbd/{i}.jpg": _png() for i in range(N)}, **(files or {})}
    folder_case(f"Record3D, {name}", lambda f: (f / "a.r3d").write_bytes(zip_of(inside)), message, "a.r3d")


_r3d("a rate of text", "fps", fps="many")
_r3d("a rate of a list", "fps", fps=[30])
_r3d("a negative rate", "fps", fps=-30)
_r3d("a rate of infinity", "fps", fps=float("inf"))
_r3d("an image of SVG", "rgbd/0.jpg", {"rgbd/0.jpg": b"<svg/>"})
_r3d("an image with a broken chunk", "rgbd/0.jpg", {"rgbd/0.jpg": _png()[:33] + b"\xff" * 40})
_r3d("an image that declares 60000", "rgbd/0.jpg", {"rgbd/0.jpg": png_header(60_000, 60_000)})
_r3d("a depth of text", "0.depth", {"rgbd/0.depth": b"bvx2 not really"})
_r3d("poses nested deep", "metadata", poses=[[[[[[[]]]]]]])
folder_case(
    "Record3D, all encrypted",
    lambda f: (f / "a.r3d").write_bytes(locked(zip_of({"metadata": b"{}", "rgbd/0.jpg": b""}))),
    "metadata",
    "a.r3d",
)


def _stray(odometry: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "camera_matrix.csv").write_text("60,0,32\n0,60,24\n0,0,1\n")
        (folder / "odometry.csv").write_text(odometry)
        (folder / "rgb.mp4").write_bytes(b"x")

    return write


HEAD = "timestamp, frame, x, y, z, qx, qy, qz, qw\n"
folder_case(
    "Stray Scanner, a field of 200 kB", _stray(HEAD + "0," + "1" * 200_000 + ",0,0,0,0,0,0,1\n"), "odometry.csv"
)
folder_case("Stray Scanner, an open quotation", _stray(HEAD + '0,"' + "1,0\n" * 60_000), "odometry.csv")
folder_case("Stray Scanner, a frame of 1e300", _stray(HEAD + "0,1e300,0,0,0,0,0,0,1\n"), "odometry.csv|rgb.mp4")
folder_case("Stray Scanner, zeros", _stray(HEAD + "\0" * 50), "odometry.csv")
