"""Frames and cameras of a training step, made once: nerfstudio slices, copies and moves them anew in every step, which
takes longer than some of the kernels of the step.

Class paths of this file stand in every `config.yml`: names here are permanent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig

from das3r_ns.files.saved_config import SavedConfig


@dataclass
class Das3rDatamanagerConfig(SavedConfig, FullImageDatamanagerConfig):
    """A `FullImageDatamanager` that keeps every frame with its camera on the device."""

    _target: type = field(default_factory=lambda: Das3rDatamanager)


class Das3rDatamanager(FullImageDatamanager):
    """See `Das3rDatamanagerConfig`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cameras: dict[int, Cameras] = {}

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Camera and data of the next frame, in random order without replacement."""
        if self.config.cache_images != "gpu":
            return super().next_train(step)
        frame = self.train_unseen_cameras.pop(0)
        if not self.train_unseen_cameras:
            self.train_unseen_cameras = self.sample_train_cameras()
        data = self.cached_train[frame]  # reading it for the first time also brings the cameras
        if frame not in self._cameras:
            camera = self.train_cameras[frame : frame + 1].to(self.device)  # type: ignore[union-attr]
            camera.metadata = {**(camera.metadata or {}), "cam_idx": frame}
            self._cameras[frame] = camera
        return self._cameras[frame], dict(data)
