"""A finished nerfstudio run: its renders of held-out frames, its cameras and masks after training.

Any method that nerfstudio's own tools load can be evaluated; das3r's own runs have learned cameras and masks besides.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.evaluation.pose_refinement import PoseRefinementConfig, refine_pose
from das3r_ns.runs import loading as runs
from das3r_ns.runs.config_file import RunError
from das3r_ns.scene import is_scene_folder, read_scene


@dataclass(frozen=True)
class TrainedRun:
    """A run with its newest checkpoint loaded."""

    config_path: Path
    method: str
    step: int
    """Of the checkpoint, counted from 0."""
    pipeline: Any
    scene_folder: Path | None
    """The scene folder it was trained on; None for other data."""
    training: dict[str, Any]
    """Settings of the config worth telling beside a number."""

    @property
    def num_gaussians(self) -> int | None:
        """None for a method without Gaussians."""
        means = getattr(self.pipeline.model, "means", None)
        return None if means is None else int(means.shape[0])

    @property
    def eval_frames(self) -> tuple[int, ...]:
        """Frames of the clip that the run was not trained on, or all when it held none out."""
        return frame_numbers(self.pipeline.datamanager.eval_dataset)

    @property
    def moves_test_cameras(self) -> bool:
        """Whether training learned something about cameras that moves those of the eval frames."""
        dataset = self.pipeline.datamanager.eval_dataset
        given, now = _as_given(dataset), dataset.cameras
        same_place = torch.allclose(now.camera_to_worlds.cpu(), given.camera_to_worlds.cpu(), atol=1e-7)
        return not (same_place and torch.allclose(now.fx.cpu(), given.fx.cpu()))

    def image(self, frame: int) -> Float[Tensor, "h w 3"]:
        """The image of an eval frame as the run reads it, RGB in [0, 1]."""
        return self.pipeline.datamanager.eval_dataset.get_image_float32(self.eval_frames.index(frame))[..., :3]

    def camera_as_predicted(self, frame: int) -> Cameras:
        """Camera of an eval frame as the data gives it, without any correction that training learned."""
        dataset = self.pipeline.datamanager.eval_dataset
        row = self.eval_frames.index(frame)
        return _where_it_stands(_as_given(dataset)[row : row + 1])

    def camera_as_trained(self, frame: int) -> Cameras:
        """Camera of an eval frame as `ns-eval` and `ns-render` see it after training."""
        row = self.eval_frames.index(frame)
        return self.pipeline.datamanager.eval_dataset.cameras[row : row + 1]

    def camera_refined(self, frame: int, image: Float[Tensor, "h w 3"], static: Float[Tensor, "h w"]) -> Cameras:
        """Camera of an eval frame moved to where the render fits the frame best, over its static pixels.

        The Gaussians stay as they are. The frame's own image is used, so this measures the scene, not the cameras:
        report it apart from the others.

        Args:
            static: weight of each pixel, 1 static.
        """
        start = self.camera_as_trained(frame)
        return refine_pose(_where_it_stands(start), self.render_all, image, static, PoseRefinementConfig())

    def render(self, camera: Cameras) -> Float[Tensor, "h w 3"]:
        """Image that a camera sees, RGB in [0, 1], on the CPU."""
        return self.render_all(camera)["rgb"].clamp(0, 1).cpu()

    def render_all(self, camera: Cameras) -> dict[str, Tensor]:
        """All outputs of the model for a camera."""
        model = self.pipeline.model
        return model.get_outputs_for_camera(camera.to(model.device))

    def trained_cameras(self) -> tuple[Float[Tensor, "n 4 4"], Float[Tensor, "n 3 3"]] | None:
        """Camera-to-world (OpenCV axes) and K of every frame of the clip after training; None where the run did not
        see all of them, held-out ones included."""
        manager = self.pipeline.datamanager
        by_frame: dict[int, tuple[Tensor, Tensor]] = {}
        for dataset in (manager.eval_dataset, manager.train_dataset):
            cameras = dataset.cameras
            poses, K = cameras.camera_to_worlds, cameras.get_intrinsics_matrices()
            for row, frame in enumerate(frame_numbers(dataset)):
                by_frame[frame] = (poses[row], K[row])
        if sorted(by_frame) != list(range(len(by_frame))):
            return None
        T = torch.eye(4, dtype=torch.float64).repeat(len(by_frame), 1, 1)
        T[:, :3] = torch.stack([by_frame[i][0] for i in range(len(by_frame))]).double().cpu()
        K = torch.stack([by_frame[i][1] for i in range(len(by_frame))]).double().cpu()
        return geometry.to_opengl(T), K

    def trained_dynamic_prob(self) -> dict[int, Float[Tensor, "h w"]]:
        """Dynamic maps of the training frames after training, by frame; empty where the method learns none."""
        maps = getattr(self.pipeline.model, "maps", None)
        if maps is None:
            return {}
        frames = frame_numbers(self.pipeline.datamanager.train_dataset)
        with torch.no_grad():
            return {frame: 1 - maps.values(row).cpu() for row, frame in enumerate(frames)}


def load_run(config_path: Path, allow_unfinished: bool = False) -> TrainedRun:
    """Load a run's newest whole checkpoint for evaluation.

    Args:
        allow_unfinished: take a run that stopped before its last step as it is.

    Raises:
        RunError: there is no such run, it has no checkpoint, or it did not finish.
    """
    run = runs.load_run(config_path, allow_unfinished=allow_unfinished)
    config: Any = run.config
    folder = run.pipeline.datamanager.train_dataset.metadata.get("scene_folder")
    if folder is None and config.data is not None and is_scene_folder(Path(config.data)):
        folder = config.data
    return TrainedRun(
        config_path=config_path,
        method=str(config.method_name),
        step=run.step,
        pipeline=run.pipeline,
        scene_folder=None if folder is None else Path(folder),
        training={"steps": run.step + 1, "max_num_iterations": config.max_num_iterations},
    )


def _as_given(dataset: Any) -> Cameras:
    """Cameras of a nerfstudio dataset before training changed any, for images of the size that it loads."""
    cameras = copy.deepcopy(dataset._dataparser_outputs.cameras)
    if dataset.scale_factor != 1.0:
        cameras.rescale_output_resolution(dataset.scale_factor)
    return cameras


def _where_it_stands(camera: Cameras) -> Cameras:
    """A camera that das3r's model does not move like its neighbours in the clip, filmed like them all the same."""
    said = camera.metadata or {}
    kept = {"exposure_index": said.get("frame_index"), "camera_motion": said.get("camera_motion")}
    return replace(camera, metadata={name: value for name, value in kept.items() if value is not None})


def frame_numbers(dataset: Any) -> tuple[int, ...]:
    """Place in the clip of each frame of a nerfstudio dataset: what its dataparser says, else the number in the
    file name of a scene folder's images (`frame_00001` is frame 0).

    Raises:
        RunError: neither says.
    """
    said = (dataset.cameras.metadata or {}).get("frame_index")
    if said is not None:
        return tuple(int(i) for i in said.flatten())
    names = [Path(name).stem for name in dataset.image_filenames]
    numbers = [name.removeprefix("frame_") for name in names]
    if not all(name.startswith("frame_") and number.isdigit() for name, number in zip(names, numbers)):
        raise RunError(
            f"nothing says which frame of the clip {dataset.image_filenames[0]} is. Train from a scene folder "
            "(das3r predict), whose images are named frame_00001 and so on."
        )
    return tuple(int(number) - 1 for number in numbers)


def predicted_static_weight(run: TrainedRun) -> Callable[[int, int, int], Float[Tensor, "h w"]]:
    """Static weight (1 - dynamic_prob) of a frame by the predictor, at a wanted size: what test poses are refined on.
    Ones where the run has no scene folder."""
    scene = None if run.scene_folder is None else read_scene(run.scene_folder)

    def weight(frame: int, height: int, width: int) -> Tensor:
        if scene is None:
            return torch.ones(height, width)
        dynamic = scene.dynamic_prob[frame][None, None]
        return 1 - torch.nn.functional.interpolate(dynamic, (height, width), mode="bilinear", align_corners=False)[0, 0]

    return weight
