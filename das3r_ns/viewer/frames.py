"""The frames of the clip as the viewer needs them: camera, image, what moves in it, how far its camera is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from das3r_ns.files.json_files import read_json_object
from das3r_ns.render.cameras import refined_camera
from das3r_ns.render.clip import clip_frames, dynamic_prob
from das3r_ns.scene.trust import trust_of_frames

DEFAULT_DEPTH = 1.0
"""World units. A scene that was predicted has this median depth."""


@dataclass(frozen=True)
class FrameView:
    """A frame of the clip as it is laid over a render."""

    T_camera_world: Float[Tensor, "4 4"]
    """OpenCV axes."""
    K: Float[Tensor, "3 3"]
    """Pixels of the image."""
    image: UInt8[np.ndarray, "h w 3"]
    dynamic_prob: Float[Tensor, "m n"]
    """What the predictor said, with the user's corrections: 0 static .. 1 moving, at map resolution."""
    left_out: Float[Tensor, "m n"]
    """What training left out by now: 1 - the learned staticness."""


class ClipFrames:
    """All frames of a clip in order, those held out included."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self._frames = clip_frames(pipeline)
        train = pipeline.datamanager.train_dataset
        self.train_index = [i if dataset is train else None for dataset, i in self._frames]
        """Number of each frame in the training set; None where it is held out."""
        self.trust = self._read_trust()

    def __len__(self) -> int:
        return len(self._frames)

    def _read_trust(self) -> list[float | None]:
        """How far each frame's camera is trusted, 0..1, from the quality record of the prediction; None without one."""
        folder = self.pipeline.datamanager.train_dataset.metadata.get("scene_folder")
        path = None if folder is None else Path(folder) / "predictor.json"
        said = read_json_object(path) if path is not None and path.is_file() else {}
        return trust_of_frames(said, len(self))

    def camera(self, place: int) -> Any:
        """Camera of a frame, a batch of one, as training has refined it by now."""
        dataset, i = self._frames[place]
        return refined_camera(self.pipeline.model, dataset.cameras[i : i + 1])

    def pose(self, place: int) -> Float[np.ndarray, "4 4"]:
        """T_world_camera of a frame, OpenCV axes."""
        T = np.eye(4)
        T[:3] = self.camera(place).camera_to_worlds[0].double().cpu().numpy()
        T[:3, 1:3] *= -1
        return T

    def image(self, place: int) -> UInt8[np.ndarray, "h w 3"]:
        """Image of a frame."""
        dataset, i = self._frames[place]
        return np.ascontiguousarray(dataset.get_numpy_image(i)[..., :3])

    def view(self, place: int, image: UInt8[np.ndarray, "h w 3"]) -> FrameView:
        """A frame with its maps as they are now."""
        camera, model = self.camera(place), self.pipeline.model
        dynamic_prob, left_out = self._maps(place)
        return FrameView(
            T_camera_world=torch.from_numpy(np.linalg.inv(self.pose(place))).float().to(model.device),
            K=camera.get_intrinsics_matrices()[0].to(model.device),
            image=image,
            dynamic_prob=dynamic_prob.to(model.device),
            left_out=left_out.to(model.device),
        )

    def _maps(self, place: int) -> tuple[Tensor, Tensor]:
        model, i = self.pipeline.model, self.train_index[place]
        moving = dynamic_prob(self.pipeline, *self._frames[place])
        if i is None or model.maps is None:
            return moving, moving
        return moving, 1 - model.maps.values(i).detach()

    def depth(self) -> float:
        """Typical z-depth of the scene in world units: the median of what was predicted, else of what was trained."""
        depth = self.pipeline.datamanager.train_dataset.metadata.get("depth")
        if depth is not None and bool((depth > 0).any()):
            return float(depth[depth > 0].median())
        means = self.pipeline.model.means.detach()
        if len(means) == 0:
            return DEFAULT_DEPTH
        return float((means - means.new_tensor(self.pose(0)[:3, 3])).norm(dim=-1).median())
