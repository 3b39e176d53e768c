"""A clip whose cameras are known, and its files as programs write them."""

from pathlib import Path

import numpy as np
import pycolmap
import torch
from PIL import Image

from das3r_ns import geometry
from das3r_ns.dataparser.known_cameras import FLIP
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

N = 16


def made_clip() -> SyntheticClip:
    """A synthetic clip, for the fixture `made` of a module."""
    return make_clip(SyntheticConfig(num_frames=N, height=144, width=256, seed=3))


def matrices_of(made: SyntheticClip) -> np.ndarray:
    """Camera-to-world, OpenGL axes."""
    return made.T_world_camera.double().numpy() @ FLIP


def lens(made: SyntheticClip) -> dict:
    K = made.K.double()
    return {"fl_x": K[0, 0].item(), "fl_y": K[1, 1].item(), "cx": 128.0, "cy": 72.0, "w": 256, "h": 144}


def write_images(made: SyntheticClip, folder: Path, names=None) -> Path:
    for i, frame in enumerate(made.frames.numpy()):
        path = folder / (f"{i:05d}.png" if names is None else names[i])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)
    return folder


def same_path(known, made, frames=slice(None)) -> None:
    """Same relative poses and lens as the truth."""
    truth = made.T_world_camera.double()[frames]
    found = known.T_world_camera.double()
    to_first = geometry.invert(truth[:1]) @ truth
    torch.testing.assert_close(geometry.invert(found[:1]) @ found, to_first, atol=1e-5, rtol=0)
    torch.testing.assert_close(known.K, made.K.expand_as(known.K), atol=1e-3, rtol=0)


def write_model(made, folder: Path, rows, names=None, text=False, rig=False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    f = lens(made)["fl_x"]
    camera = pycolmap.Camera(model="PINHOLE", width=256, height=144, params=[f, f, 128, 72], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for k, i in enumerate(rows):
        name = f"{i:05d}.png" if names is None else names[k]
        image = pycolmap.Image(name=name, camera_id=1, image_id=k + 1)
        T = np.linalg.inv(made.T_world_camera.double().numpy()[i])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T[:3]))
    (model.write_text if text else model.write)(str(folder))
    return folder
