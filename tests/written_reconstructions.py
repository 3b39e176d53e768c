"""Files as other programs write them, each by its definition (size, cut, stretch, axes, order of quaternions), from one
scene: a slanted plane, whose depth is known at every pixel of every image, and a camera that moves past it.

`FRAME` is the size of the frames; every writer makes its program's images of them and writes cameras, depth and masks
of these. Nothing of `das3r_ns` is used.
"""

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

FRAME = (202, 362)
"""Height and width: no program leaves them as they are."""
N = 6
PLANE = np.array([0.15, -0.1, 1.0]) / 6
"""Points of the plane satisfy PLANE @ x = 1."""
SQUARE = (0.3, 0.55, 0.2, 0.45)
"""Rows and columns, as shares of the frame, of what moves."""


@dataclass
class World:
    """Cameras (camera-to-world, OpenCV axes) and the lens at the size of the frames, first pixel's corner at (0, 0)."""

    T: np.ndarray
    K: np.ndarray
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def K_at(self, resized, top=0, left=0) -> np.ndarray:
        """K of frames that are resized, then cut."""
        K = self.K.copy()
        K[0] *= resized[1] / FRAME[1]
        K[1] *= resized[0] / FRAME[0]
        K[0, 2] -= left
        K[1, 2] -= top
        return K

    def depth(self, i, K, size) -> np.ndarray:
        """z-depth of the plane at the pixels of an image."""
        v, u = np.mgrid[: size[0], : size[1]] + 0.5
        rays = np.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)), -1) @ self.T[i, :3, :3].T
        return (1 - PLANE @ self.T[i, :3, 3]) / (rays @ PLANE)

    def image(self, i, resized, top=0, left=0, size=None) -> np.ndarray:
        whole = cv2.resize(self.frames[i], resized[::-1], interpolation=cv2.INTER_AREA)
        size = size or resized
        return whole[top : top + size[0], left : left + size[1]]

    def moving(self, resized, top=0, left=0, size=None) -> np.ndarray:
        """True in `SQUARE`."""
        size = size or resized
        v, u = np.mgrid[top : top + size[0], left : left + size[1]] + 0.5
        v, u = v / resized[0], u / resized[1]
        return (v > SQUARE[0]) & (v < SQUARE[1]) & (u > SQUARE[2]) & (u < SQUARE[3])


def make_world(n: int = N) -> World:
    rng = np.random.default_rng(5)
    t = np.linspace(0, 1, n)
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, 3] = np.stack((1.5 * t, 0.2 * np.sin(3 * t), 0.3 * t), axis=1)
    T[:, :3, :3] = Rotation.from_euler("yxz", np.stack((-0.2 * t, 0.05 * t, 0.03 * t), axis=1)).as_matrix()
    K = np.array([[300.0, 0, 181], [0, 300.0, 101], [0, 0, 1]])
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (900, 900, 3)).astype(np.float32), (0, 0), 2.5)
    texture = np.clip((texture - 127) * 6 + 127, 0, 255)
    world = World(T, K)
    frames = []
    for i in range(n):
        depth = world.depth(i, K, FRAME)
        v, u = np.mgrid[: FRAME[0], : FRAME[1]] + 0.5
        points = np.stack(((u - K[0, 2]) / K[0, 0] * depth, (v - K[1, 2]) / K[1, 1] * depth, depth), -1)
        points = points @ T[i, :3, :3].T + T[i, :3, 3]
        x, y = ((points[..., k] * 70 + 330).astype(np.float32) for k in (0, 1))
        frames.append(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.uint8))
    world.frames = np.stack(frames)
    return world


def inverse(T: np.ndarray) -> np.ndarray:
    return np.linalg.inv(T)


def xyzw(T: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(T[:, :3, :3]).as_quat()


def four(K: np.ndarray) -> list[float]:
    return [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]


def write_images(world: World, folder: Path) -> Path:
    """The clip itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(world.frames):
        Image.fromarray(frame).save(folder / f"{i:05d}.png")
    return folder


def write_mp4(world: World, path: Path, fps: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "8"})
        stream.height, stream.width, stream.pix_fmt = *FRAME, "yuv420p"
        for frame in world.frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def droid_size() -> tuple[tuple[int, int], tuple[int, int]]:
    h0, w0 = FRAME
    scale = np.sqrt(384 * 512 / (h0 * w0))
    resized = int(h0 * scale), int(w0 * scale)
    return resized, (resized[0] - resized[0] % 8, resized[1] - resized[1] % 8)


def megasam(world: World, folder: Path) -> Path:
    resized, size = droid_size()
    K = world.K_at(resized)
    path = folder / "clip_sgd_cvd_hr.npz"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        images=np.stack([world.image(i, resized, size=size) for i in range(len(world.T))]),
        depths=np.stack([world.depth(i, K, size) for i in range(len(world.T))]).astype(np.float16),
        intrinsic=K,
        cam_c2w=world.T,
    )
    return path


def _droid_arrays(world: World, scale: float) -> dict[str, np.ndarray]:
    resized, size = droid_size()
    K = world.K_at(resized)
    w2c = inverse(world.T)
    n = len(world.T)
    images = np.stack([world.image(i, resized, size=size)[..., ::-1].transpose(2, 0, 1) for i in range(n)])
    return {
        "images": images,
        "disps": np.stack([1 / world.depth(i, K, size) for i in range(n)]).astype(np.float32),
        "poses": np.concatenate((w2c[:, :3, 3], xyzw(w2c)), axis=1).astype(np.float32),
        "intrinsics": np.tile(np.array(four(K)) / scale, (n, 1)).astype(np.float32),
    }


def megasam_folder(world: World, folder: Path) -> Path:
    resized, size = droid_size()
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in _droid_arrays(world, 1).items():
        np.save(folder / f"{name}.npy", array)
    small = size[0] // 8, size[1] // 8
    static = [cv2.resize(1.0 - world.moving(resized, size=size), small[::-1], interpolation=cv2.INTER_AREA)] * len(
        world.T
    )
    np.save(folder / "motion_prob.npy", np.stack(static).astype(np.float32))
    return folder


def droid(world: World, folder: Path, keyframes=None, stride: int = 1) -> Path:
    """`keyframes`: which of the frames; `tstamps` count them after the stride."""
    import torch

    keyframes = list(range(len(world.T))) if keyframes is None else keyframes
    arrays = {key: torch.from_numpy(value[keyframes].copy()) for key, value in _droid_arrays(world, 8).items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "reconstruction.pth"
    torch.save({**arrays, "tstamps": torch.tensor([k / stride for k in keyframes])}, path)
    return path


def centre_size() -> tuple[tuple[int, int], int, int, tuple[int, int]]:
    h0, w0 = FRAME
    resized = round(h0 * 512 / max(h0, w0)), round(w0 * 512 / max(h0, w0))
    cx, cy = resized[1] // 2, resized[0] // 2
    half_w, half_h = ((2 * cx) // 16) * 8, ((2 * cy) // 16) * 8
    return resized, cy - half_h, cx - half_w, (2 * half_h, 2 * half_w)


def monst3r(world: World, folder: Path, das3r: bool = False) -> Path:
    resized, top, left, size = centre_size()
    K = world.K_at(resized, top, left)
    folder.mkdir(parents=True, exist_ok=True)
    q = xyzw(world.T)
    rows = [[i, *world.T[i, :3, 3], q[i, 3], *q[i, :3]] for i in range(len(world.T))]
    np.savetxt(folder / "pred_traj.txt", rows)
    np.savetxt(folder / "pred_intrinsics.txt", np.tile(K.reshape(1, 9), (len(world.T), 1)))
    if das3r:
        np.savetxt(folder / "pred_focal.txt", np.full(len(world.T), K[0, 0]))
    for i in range(len(world.T)):
        np.save(folder / f"frame_{i:04d}.npy", world.depth(i, K, size).astype(np.float32))
        np.save(folder / f"conf_{i}.npy", np.full(size, np.log(5.0), np.float32))
        Image.fromarray(world.image(i, resized, top, left, size)).save(folder / f"frame_{i:04d}.png")
        moving = world.moving(resized, top, left, size)
        if das3r:
            np.save(folder / f"dyna_avg_{i}.npy", moving.astype(np.float32) * 0.9)
        else:
            Image.fromarray(moving.astype(np.uint8) * 255).save(folder / f"dynamic_mask_{i}.png")
            Image.fromarray(np.full(size, 255, np.uint8)).save(folder / f"enlarged_dynamic_mask_{i}.png")
    return folder


def das3r(world: World, folder: Path) -> Path:
    return monst3r(world, folder, das3r=True)


def cut3r(world: World, folder: Path) -> Path:
    resized, top, left, size = centre_size()
    K = world.K_at(resized, top, left)
    for name in ("depth", "conf", "color", "camera"):
        (folder / name).mkdir(parents=True)
    for i in range(len(world.T)):
        np.save(folder / "depth" / f"{i:06d}.npy", world.depth(i, K, size).astype(np.float32))
        np.save(folder / "conf" / f"{i:06d}.npy", np.full(size, 4.0, np.float32))
        np.savez(
            folder / "camera" / f"{i:06d}.npz", pose=world.T[i].astype(np.float32), intrinsics=K.astype(np.float32)
        )
        Image.fromarray(world.image(i, resized, top, left, size)).save(folder / "color" / f"{i:06d}.png")
    return folder


def vipe(world: World, folder: Path, indices=None) -> Path:
    import OpenEXR

    n = len(world.T)
    indices = np.arange(n) if indices is None else np.array(indices)
    for name in ("pose", "intrinsics", "depth", "mask"):
        (folder / name).mkdir(parents=True)
    np.savez(folder / "pose" / "clip.npz", data=world.T[indices].astype(np.float32), inds=indices)
    K = np.array(four(world.K)) - [0, 0, 0.5, 0.5]
    np.savez(folder / "intrinsics" / "clip.npz", data=np.tile(K, (len(indices), 1)).astype(np.float32), inds=indices)
    (folder / "intrinsics" / "clip_camera.txt").write_text("".join(f"{i}: PINHOLE\n" for i in indices))
    write_mp4(world, folder / "rgb" / "clip.mp4")
    (folder / "mask" / "clip.txt").write_text("0: background\n1: person\n2: sky\n")
    with (
        zipfile.ZipFile(folder / "depth" / "clip.zip", "w") as depths,
        zipfile.ZipFile(folder / "mask" / "clip.zip", "w") as masks,
    ):
        for i in indices:
            path = folder / "one.exr"
            z = world.depth(i, world.K, FRAME).astype(np.float16)
            z[0, 0] = np.nan
            with OpenEXR.File(
                {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, {"Z": z}
            ) as file:
                file.write(str(path))
            depths.write(path, f"{i:05d}.exr")
            path.unlink()
            instance = np.where(world.moving(FRAME), 1, 0).astype(np.uint8)
            instance[:20] = 2
            data = io.BytesIO()
            Image.fromarray(instance).save(data, "PNG")
            masks.writestr(f"{i:05d}.png", data.getvalue())
    return folder


def da3_size() -> tuple[int, int]:
    scale = 504 / max(FRAME)
    return round(FRAME[0] * scale / 14) * 14, round(FRAME[1] * scale / 14) * 14


def depth_anything(world: World, folder: Path, mini: bool = False) -> Path:
    size = da3_size()
    K = world.K_at(size)
    n = len(world.T)
    place = folder / "exports" / ("mini_npz" if mini else "npz")
    place.mkdir(parents=True)
    arrays = {
        "depth": np.stack([world.depth(i, K, size) for i in range(n)]).astype(np.float32).round(8 if mini else 6),
        "conf": np.full((n, *size), 3.0, np.float32),
        "extrinsics": inverse(world.T)[:, :3].astype(np.float32),
        "intrinsics": np.tile(K, (n, 1, 1)).astype(np.float32),
    }
    if not mini:
        arrays["image"] = np.stack([world.image(i, size) for i in range(n)])
    np.savez_compressed(place / "results.npz", **arrays)
    return folder


def depth_anything_mini(world: World, folder: Path) -> Path:
    return depth_anything(world, folder, mini=True)


def depth_anything_streaming(world: World, folder: Path) -> Path:
    """Depth of the second half has another scale, as that of another chunk."""
    size = da3_size()
    K = world.K_at(size)
    (folder / "results_output").mkdir(parents=True)
    np.savetxt(folder / "camera_poses.txt", world.T.reshape(-1, 16))
    np.savetxt(folder / "intrinsic.txt", np.tile(four(K), (len(world.T), 1)))
    for i in range(len(world.T)):
        np.savez(
            folder / "results_output" / f"frame_{i}.npz",
            image=world.image(i, size),
            depth=world.depth(i, K, size).astype(np.float32),
            conf=np.full(size, 2.0, np.float32),
            intrinsics=K.astype(np.float32),
        )
    return folder


def vggt_omega(world: World, folder: Path) -> Path:
    size = (288, 512)
    K = world.K_at(size)
    n = len(world.T)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "predictions.npz",
        pose_enc=np.zeros((n, 9), np.float32),
        depth=np.stack([world.depth(i, K, size) for i in range(n)]).astype(np.float32)[..., None],
        depth_conf=np.full((n, *size), 6.0, np.float32),
        images=np.stack([world.image(i, size).transpose(2, 0, 1) / 255 for i in range(n)]).astype(np.float32),
        extrinsic=inverse(world.T)[:, :3].astype(np.float32),
        intrinsic=np.tile(K, (n, 1, 1)).astype(np.float32),
    )
    return folder


def colmap_without_zero(world: World, folder: Path, resized=None) -> Path:
    """As VGGT's `demo_colmap.py` and MapAnything write it: `images/` and `sparse/*.bin`, a PINHOLE an image."""
    import pycolmap

    size = resized or FRAME
    (folder / "images").mkdir(parents=True)
    (folder / "sparse").mkdir()
    K = world.K_at(size)
    model = pycolmap.Reconstruction()
    for i in range(len(world.T)):
        Image.fromarray(world.image(i, size)).save(folder / "images" / f"view_{i:03d}.png")
        camera = pycolmap.Camera(model="PINHOLE", width=size[1], height=size[0], params=four(K), camera_id=i + 1)
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=f"view_{i:03d}.png", camera_id=i + 1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(inverse(world.T)[i, :3]))
    model.write_binary(str(folder / "sparse"))
    return folder


def mapanything(world: World, folder: Path) -> Path:
    return colmap_without_zero(world, folder, (294, 518))


def tum(world: World, path: Path, times, rows=None) -> Path:
    rows = range(len(world.T)) if rows is None else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    q = xyzw(world.T)
    lines = [" ".join(map(repr, [float(t), *world.T[i, :3, 3].tolist(), *q[i].tolist()])) for t, i in zip(times, rows)]
    path.write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def wildgs(world: World, folder: Path, keyframes) -> Path:
    tum(world, folder / "traj" / "est_poses_full.txt", range(len(world.T)))
    size = (96, 176)
    K = world.K_at(size)
    np.savez(
        folder / "video.npz",
        poses=world.T[keyframes],
        depths=np.stack([world.depth(i, K, size) for i in keyframes]).astype(np.float32),
        timestamps=np.array(keyframes, np.float64),
        valid_depth_masks=np.ones((len(keyframes), *size), bool),
    )
    return folder


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
