"""Files as other programs write them, each by its definition (size, cut, stretch, axes, order of quaternions), from one
scene: a slanted plane, whose depth is known at every pixel of every image, and a camera that moves past it.

`FRAME` is the size of the frames; every writer makes its program's images of them and writes cameras, depth and masks
of these. Nothing of `das3r_ns` is used.
"""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from reconstructed_world import (  # noqa: F401  (handed on)
    FRAME,
    PLANE,
    SQUARE,
    N,
    World,
    four,
    inverse,
    make_world,
    write_images,
    write_mp4,
    xyzw,
)
from written_phones import polycam, record3d, stray_scanner  # noqa: F401  (handed on)


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
