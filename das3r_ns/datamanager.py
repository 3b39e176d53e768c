"""Frames and cameras of a training step: nerfstudio slices, copies and moves cameras anew in every step, which takes
longer than some of the kernels of the step, and holds every image of a dataset in memory at once.

Class paths of this file stand in every `config.yml`: names here are permanent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.dataparser.frame_store import FrameStore, frame_bytes
from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.runtime.memory import GIB, available_bytes

GPU_SHARE = 0.25
"""Of the GPU's memory, for images that training comes back to."""
HOST_SHARE = 0.25
"""Of the free main memory, for those that the GPU has no room for."""


@dataclass
class Das3rDatamanagerConfig(SavedConfig, FullImageDatamanagerConfig):
    """A `FullImageDatamanager` that keeps frames with their cameras on the device, and streams what does not fit."""

    _target: type = field(default_factory=lambda: Das3rDatamanager)
    gpu_cache_gib: float | None = None
    """GPU memory for training images, GiB. None: a quarter of the GPU's. What does not fit is kept in main memory or
    read again, each frame ahead of its step."""
    cpu_cache_gib: float | None = None
    """Main memory for decoded images that the GPU has no room for, GiB. None: a quarter of what is free."""

    def check(self) -> None:
        """
        Raises:
            ValueError: a size makes no sense.
        """
        for name in ("gpu_cache_gib", "cpu_cache_gib"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"--pipeline.datamanager.{name.replace('_', '-')} must not be negative, got {value}")


class Das3rDatamanager(FullImageDatamanager):
    """See `Das3rDatamanagerConfig`."""

    config: Das3rDatamanagerConfig

    def __init__(self, config: Das3rDatamanagerConfig, *args: Any, **kwargs: Any) -> None:
        config.check()
        # Above 500 frames nerfstudio turns "gpu" into "cpu", whatever their size; here their size decides.
        asked, config.cache_images = config.cache_images, "cpu"
        super().__init__(config, *args, **kwargs)
        config.cache_images = asked
        self._cameras: dict[int, Cameras] = {}

    def next_train(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Camera and data of the next frame, in random order without replacement."""
        frame = self.train_unseen_cameras.pop(0)
        if not self.train_unseen_cameras:
            self.train_unseen_cameras = self.sample_train_cameras()
        data = self.cached_train[frame]  # reading it for the first time also brings the cameras
        if isinstance(self.cached_train, FrameStore):
            self.cached_train.prefetch(self.train_unseen_cameras)
        if frame not in self._cameras:
            camera = self.train_cameras[frame : frame + 1].to(self.device)  # type: ignore[union-attr]
            camera.metadata = {**(camera.metadata or {}), "cam_idx": frame}
            self._cameras[frame] = camera
        return self._cameras[frame], {**data, "image": data["image"].to(self.device)}

    def _load_images(self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]) -> Any:
        """The images of a split: nerfstudio's list where lenses have to be undone, else a `FrameStore`."""
        dataset = self.train_dataset if split == "train" else self.eval_dataset
        lens = dataset.cameras.distortion_params
        if lens is not None and bool(lens.any()):
            return super()._load_images(split, cache_images_device)
        device = torch.device(self.device)
        self.train_cameras = self.train_dataset.cameras.to(device)
        room, host_room = self._rooms(device, cache_images_device)
        kind = self.config.cache_images_type
        needed = len(dataset) * frame_bytes(dataset, kind)
        if split == "eval":  # evaluated now and then: what training comes back to every second is worth more
            room, host_room = min(room, needed) if needed < room / 4 else 0, 0
        elif needed > room:
            where = "the rest in main memory" if needed - room <= host_room else "the rest is read ahead of its step"
            CONSOLE.print(
                f"Images: {len(dataset)} frames of {needed / GIB:.1f} GiB, {min(room, needed) / GIB:.1f} GiB kept on "
                f"the {'GPU' if device.type == 'cuda' else 'CPU'}, {where}.",
                soft_wrap=True,
            )
        return FrameStore(dataset, kind, device, room, host_room)

    def _rooms(self, device: torch.device, cache: Literal["cpu", "gpu"]) -> tuple[int, int]:
        """Bytes for images on the device and, beside a GPU, in main memory."""
        given, host = self.config.gpu_cache_gib, self.config.cpu_cache_gib
        host_room = int(HOST_SHARE * available_bytes()) if host is None else int(host * GIB)
        if device.type != "cuda":
            return host_room, 0
        if cache == "cpu":
            return 0, host_room
        room = GPU_SHARE * torch.cuda.get_device_properties(device).total_memory if given is None else given * GIB
        return int(room), host_room

    def get_train_rays_per_batch(self) -> int:
        """Pixels of a frame; nerfstudio asks in every step, for its log."""
        cameras = self.train_dataset.cameras
        return int(cameras.height[0]) * int(cameras.width[0])

    @property
    def fixed_indices_eval_dataloader(self) -> Sequence[tuple[Cameras, dict[str, Any]]]:  # type: ignore[override]
        """Every evaluation frame with its camera, each read when its turn comes."""
        return _EvaluationFrames(self.cached_eval, self.eval_dataset.cameras, torch.device(self.device))


class _EvaluationFrames(Sequence[tuple[Cameras, dict[str, Any]]]):
    def __init__(self, frames: Sequence[dict[str, Any]], cameras: Cameras, device: torch.device) -> None:
        self._frames, self._cameras, self._device = frames, cameras.to(device), device

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> tuple[Cameras, dict[str, Any]]:  # type: ignore[override]
        data = dict(self._frames[index])
        data["image"] = data["image"].to(self._device)
        return self._cameras[index : index + 1], data

    def __iter__(self) -> Iterator[tuple[Cameras, dict[str, Any]]]:
        return (self[i] for i in range(len(self)))
