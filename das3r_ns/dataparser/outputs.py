"""A scene folder as nerfstudio's `DataparserOutputs`. The only turn from OpenCV to OpenGL axes is made here.

What the model reads from `metadata` is listed at `_train_metadata`. A scene that was predicted is already levelled
and of unit size, so nothing is transformed; one whose cameras the user gave keeps the user's world on disk and is
levelled here, with the transform put where nerfstudio's exports look for it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.dataparser.seed_points import training_seed_points
from das3r_ns.files.image_file import open_image
from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene, image_paths, read_scene
from das3r_ns.scene.edited_masks import edited_masks

EvalMode = Literal["all", "paper", "interval"]

INTERPOLATED_WEIGHT = 0.2
"""Weight of a frame whose pose was interpolated between its neighbours: it may be off by some pixels."""


class SceneOutputs(DataparserOutputs):
    """nerfstudio's outputs with a transform in double precision: in single precision poses could not be brought back to
    map coordinates, which have seven digits before the point."""

    def transform_poses_to_original_space(
        self, poses: Float[Tensor, "n 3 4"], camera_convention: Literal["opengl", "opencv"] = "opencv"
    ) -> Float[Tensor, "n 3 4"]:
        """See `DataparserOutputs`. Double precision."""
        return super().transform_poses_to_original_space(poses.double(), camera_convention)


def split_frames(count: int, split: str, mode: EvalMode, interval: int) -> list[int]:
    """Numbers of the frames of a split.

    Args:
        split: "train", or "val" and "test", which are the same.
    Raises:
        ValueError: the split would be empty.
    """
    if mode == "all":
        return list(range(count))
    held_out = {i for i in range(count) if ((i + 5) % 10 == 0 if mode == "paper" else i % interval == 0)}
    chosen = [i for i in range(count) if (i in held_out) == (split != "train")]
    if not chosen:
        raise ValueError(
            f"--eval-mode {mode} leaves no frame for {split} in a clip of {count} frames. Use --eval-mode all"
            + (", or another --eval-interval." if mode == "interval" else ".")
        )
    return chosen


def outputs_of_scene(
    folder: Path, split: str, mode: EvalMode = "all", interval: int = 8, max_points: int | None = 300_000
) -> DataparserOutputs:
    """What nerfstudio wants to know about one split of a scene folder.

    Args:
        max_points: see `training_seed_points`; used for the train split only.
    """
    scene = read_scene(folder)
    numbers = split_frames(len(scene), split, mode, interval)
    scene, T_shown_world, scale = shown_scene(scene)
    images, masks = image_paths(folder), _mask_paths(folder, scene.image_size)
    if masks is not None:
        masks = edited_masks(folder, scene.names, masks)
    return SceneOutputs(
        image_filenames=[images[i] for i in numbers],
        cameras=nerfstudio_cameras(scene, numbers),
        mask_filenames=None if masks is None else [masks[i] for i in numbers],
        scene_box=_scene_box(scene),
        dataparser_transform=T_shown_world,
        dataparser_scale=scale,
        metadata={
            "scene_folder": str(folder),
            "frame_index": torch.tensor(numbers),
            **(_train_metadata(scene, images, numbers, max_points) if split == "train" else {}),
        },
    )


def _mask_paths(folder: Path, image_size: tuple[int, int]) -> list[Path] | None:
    """Masks of a scene folder, None if its owner took them out; checked, because they are there to be edited."""
    frames = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))["frames"]
    if not all("mask_path" in frame for frame in frames):
        return None
    paths = [folder / frame["mask_path"] for frame in frames]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. Put it back: white where the scene is static, else black.")
        with open_image(path) as mask:  # reads the header only
            width, height = mask.size
            if (height, width) != image_size or len(mask.getbands()) != 1:
                raise ValueError(
                    f"{path} is {width}x{height} pixels with {len(mask.getbands())} channels; nerfstudio wants one "
                    f"grey channel of the frames' size, {image_size[1]}x{image_size[0]}. Save it like that."
                )
    return paths


def nerfstudio_cameras(scene: Scene, numbers: list[int]) -> Cameras:
    """Cameras of the given frames, OpenGL axes; `metadata["frame_index"]` [n 1] says which frame each belongs to,
    `metadata["camera_motion"]` [n 6] how the scene moves past it (see `geometry.camera_motion`)."""
    height, width = scene.image_size
    K = scene.K[numbers]
    n = len(numbers)
    return Cameras(
        camera_to_worlds=geometry.to_opengl(scene.T_world_camera[numbers])[:, :3],
        fx=K[:, 0, 0, None],
        fy=K[:, 1, 1, None],
        cx=K[:, 0, 2, None],
        cy=K[:, 1, 2, None],
        width=torch.full((n, 1), width),
        height=torch.full((n, 1), height),
        camera_type=CameraType.PERSPECTIVE,
        metadata={
            "frame_index": torch.tensor(numbers)[:, None],
            "camera_motion": geometry.camera_motion(scene.T_world_camera)[numbers],
        },
    )


def _train_metadata(scene: Scene, images: list[Path], numbers: list[int], max_points: int | None) -> dict[str, Any]:
    """Start points (`StartPoints`, prefixed points3D_) and the maps of the training frames, at the maps' resolution."""
    start = training_seed_points(scene, images, numbers, max_points)
    weight = frame_weights(scene)[numbers]
    return {
        "points3D_xyz": start.xyz,
        "points3D_rgb": start.rgb,
        "points3D_scale": start.scale,
        "points3D_staticness": start.staticness,
        "points3D_pixel": start.pixel,
        "dynamic_prob": scene.dynamic_prob[numbers],
        "depth": scene.depth[numbers],
        "confidence": scene.confidence[numbers],
        "frame_weight": weight,
    }


def frame_weights(scene: Scene) -> Float[Tensor, "n"]:
    """How much each frame counts in training: as far as its camera is trusted (the quality record of `predictor.json`),
    or 1, and `INTERPOLATED_WEIGHT` where the pose was interpolated."""
    trust = (scene.provenance.get("quality") or {}).get("frames", {}).get("trust")
    if not isinstance(trust, list) or len(trust) != len(scene):
        return torch.where(scene.pose_known, 1.0, INTERPOLATED_WEIGHT)
    return torch.tensor([1.0 if value is None else float(value) for value in trust]).clamp(0, 1)


def shown_scene(scene: Scene) -> tuple[Scene, Float64[Tensor, "3 4"], float]:
    """The scene in the world that training sees, and nerfstudio's transform and scale from the user's own world.

    nerfstudio applies them as scale * (transform @ x).
    """
    if not scene.provenance.get("cameras_given"):
        return scene, scene.applied_transform[:3], 1.0
    static = (scene.depth > 0) & (scene.dynamic_prob <= DYNAMIC_THRESHOLD)
    depths = scene.depth[static] if static.any() else (scene.points.xyz - scene.T_world_camera[0, :3, 3]).norm(dim=1)
    T_shown_world = geometry.level_world(scene.T_world_camera, float(depths.median()))
    T_world_camera, scale = geometry.apply_similarity(T_shown_world, scene.T_world_camera)
    points = replace(scene.points, xyz=geometry.transform(T_shown_world, scene.points.xyz))
    shown = replace(scene, T_world_camera=T_world_camera, depth=scene.depth * scale, points=points)
    T_shown_original = T_shown_world.double() @ scene.applied_transform
    return shown, T_shown_original[:3] / scale, scale


def _scene_box(scene: Scene) -> SceneBox:
    """Box around the cameras and nearly all seed points (the farthest are often wrong)."""
    positions = scene.T_world_camera[:, :3, 3]
    corners = [positions.amin(dim=0), positions.amax(dim=0)]
    if len(scene.points):
        step = max(1, len(scene.points) // 100_000)
        quantiles = torch.quantile(scene.points.xyz[::step], torch.tensor([0.02, 0.98]), dim=0)
        corners += [quantiles[0], quantiles[1]]
    box = torch.stack(corners)
    return SceneBox(aabb=torch.stack((box.amin(dim=0) - 0.1, box.amax(dim=0) + 0.1)))
