"""Feed the readers of scenes, point clouds and COLMAP models with inputs that a fuzzer makes up.

    pip install atheris
    python benchmarks/fuzz_readers.py --minutes 10

libFuzzer changes the files of a good scene folder and of a good COLMAP model, one at a time, and keeps what reaches new
lines of the readers. A reader may refuse in words (`SceneFolderError`, or `ValueError` that names the file) or read the
file; anything else, ten seconds or 2 GiB is a crash: the run ends, and the input lies in the current folder
(`crash-...`; its first byte says which file it stands for). Give it as an argument to try it again.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]
import numpy as np
import torch

with atheris.instrument_imports(include=["das3r_ns.scene", "das3r_ns.dataparser", "das3r_ns.files", "plyfile"]):
    from das3r_ns.dataparser.known_cameras import read_cameras
    from das3r_ns.scene import PointCloud, Scene, SceneFolderError, read_scene, write_scene


def make_scene(folder: Path) -> Path:
    """A good scene of three small frames."""
    n, h, w = 3, 12, 16
    T = torch.eye(4).repeat(n, 1, 1)
    T[:, 0, 3] = torch.arange(n) * 0.1
    K = torch.tensor([[20.0, 0, w], [0, 20.0, h], [0, 0, 1]]).repeat(n, 1, 1)
    points = PointCloud(torch.rand(5, 3), torch.zeros(5, 3, dtype=torch.uint8), torch.ones(5), torch.zeros(5).int())
    scene = Scene(
        T_world_camera=T, K=K, image_size=(2 * h, 2 * w), depth=torch.ones(n, h, w), confidence=torch.ones(n, h, w),
        dynamic_prob=torch.zeros(n, h, w), points=points, pose_known=torch.ones(n, dtype=torch.bool),
        names=tuple(f"{i}.png" for i in range(n)),
    )  # fmt: skip
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (n, 2 * h, 2 * w, 3), np.uint8))
    return write_scene(scene, frames, folder)


def make_model(folder: Path) -> Path:
    """A good COLMAP model of three images, binary."""
    folder.mkdir()
    images = struct.pack("<Q", 3)
    for i in range(3):
        images += (
            struct.pack("<I7dI", i + 1, 1.0, 0, 0, 0, 0.1 * i, 0, 0, 1) + f"{i}.png\0".encode() + struct.pack("<Q", 0)
        )
    (folder / "images.bin").write_bytes(images)
    (folder / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 1, 1, 64, 48, 60.0, 60.0, 32.0, 24.0))
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("input", nargs="?", help="one input to try again")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    scene, model = make_scene(place / "scene"), make_model(place / "model")
    maps = [next((scene / room).iterdir()) for room in ("depth", "confidence", "dynamic_prob", "masks")]
    names = ["transforms.json", "predictor.json", "sparse_pc.ply", *(str(path.relative_to(scene)) for path in maps)]
    targets = [scene / name for name in names] + [model / name for name in ("cameras.bin", "images.bin")]
    good = [path.read_bytes() for path in targets]
    seeds = place / "seeds"
    seeds.mkdir()
    for i, content in enumerate(good):
        (seeds / str(i)).write_bytes(bytes([i]) + content)
    counts = {"read": 0, "refused": 0}

    def one(data: bytes) -> None:
        if not data:
            return
        which = data[0] % len(targets)
        path = targets[which]
        path.write_bytes(data[1:])
        try:
            if path.parent == model:
                for cameras in read_cameras(model):
                    assert np.isfinite(cameras.T_world_camera).all()
                    assert torch.isfinite(cameras.K).all()
            else:
                read_scene(scene)
            counts["read"] += 1
        except SceneFolderError:
            counts["refused"] += 1
        except ValueError as error:
            counts["refused"] += 1
            if path.parent != model or str(model) not in str(error):
                raise
        finally:
            path.write_bytes(good[which])
            if sum(counts.values()) % 20_000 == 0:
                print(counts, flush=True)

    limits = [
        "-timeout=10",
        "-rss_limit_mb=3072",
        f"-max_total_time={int(60 * options.minutes)}",
        "-max_len=8192",
        "-len_control=0",
    ]
    inputs = [options.input] if options.input else [str(seeds)]
    atheris.Setup([sys.argv[0], *limits, *inputs], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
