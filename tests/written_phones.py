"""Folders as apps on phones write them, each by its definition."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from reconstructed_world import FRAME, World, four, write_mp4, xyzw

FLIP = np.diag([1.0, -1, -1, 1])


def record3d(world: World, folder: Path) -> Path:
    import liblzfse

    folder.mkdir(parents=True, exist_ok=True)
    size = (48, 86)
    K = world.K_at(size)
    T = world.T @ FLIP
    q = xyzw(T)
    metadata = {
        "K": world.K.T.reshape(-1).tolist(),
        "poses": [[*q[i], *T[i, :3, 3]] for i in range(len(T))],
        "fps": 30, "w": FRAME[1], "h": FRAME[0], "dw": size[1], "dh": size[0],
    }  # fmt: skip
    path = folder / "clip.r3d"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata", json.dumps(metadata))
        for i in range(len(T)):
            data = io.BytesIO()
            Image.fromarray(world.frames[i]).save(data, "JPEG", quality=95)
            file.writestr(f"rgbd/{i}.jpg", data.getvalue())
            file.writestr(f"rgbd/{i}.depth", liblzfse.compress(world.depth(i, K, size).astype(np.float32).tobytes()))
            file.writestr(f"rgbd/{i}.conf", liblzfse.compress(np.full(size, 2, np.uint8).tobytes()))
    return path


def stray_scanner(world: World, folder: Path) -> Path:
    size = (192, 344)
    K = world.K_at(size)
    for name in ("depth", "confidence"):
        (folder / name).mkdir(parents=True)
    write_mp4(world, folder / "rgb.mp4", 30)
    np.savetxt(folder / "camera_matrix.csv", world.K, delimiter=",")
    q = xyzw(world.T)
    lines = [
        ", ".join([repr(i / 30), f"{i:06d}", *(repr(float(v)) for v in (*world.T[i, :3, 3], *q[i]))])
        for i in range(len(world.T))
    ]
    (folder / "odometry.csv").write_text("timestamp, frame, x, y, z, qx, qy, qz, qw\n" + "\n".join(lines) + "\n")
    for i in range(len(world.T)):
        millimetres = (world.depth(i, K, size) * 1000).round().astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "depth" / f"{i:06d}.png")
        Image.fromarray(np.full(size, 2, np.uint8)).save(folder / "confidence" / f"{i:06d}.png")
    return folder


def polycam(world: World, folder: Path) -> Path:
    size = (192, 344)
    K_depth = world.K_at(size)
    root = folder / "keyframes"
    for name in ("images", "corrected_images", "cameras", "corrected_cameras", "depth", "confidence"):
        (root / name).mkdir(parents=True)
    wrong = world.T.copy()
    wrong[:, 0, 3] += np.linspace(0, 0.3, len(wrong))  # before Polycam's own optimisation
    for i in range(len(world.T)):
        stamp = 27_000_000_000 + 500_000 * i
        for prefix, T in (("", wrong), ("corrected_", world.T)):
            T = T[i] @ FLIP
            camera = {f"t_{r}{c}": T[r, c] for r in range(3) for c in range(4)}
            camera |= dict(zip(("fx", "fy", "cx", "cy"), four(world.K)))
            camera |= {"width": FRAME[1], "height": FRAME[0], "blur_score": 100.0}
            (root / f"{prefix}cameras" / f"{stamp}.json").write_text(json.dumps(camera))
            Image.fromarray(world.frames[i]).save(root / f"{prefix}images" / f"{stamp}.jpg", quality=95)
        millimetres = (world.depth(i, K_depth, size) * 1000).round().astype(np.uint16)
        Image.fromarray(millimetres).save(root / "depth" / f"{stamp}.png")
        Image.fromarray(np.full(size, 255, np.uint8)).save(root / "confidence" / f"{stamp}.png")
    return folder
