"""Images of a dataset for training: on the device as far as they fit, else streamed, the next ones fetched ahead.

Frames come in random order, each once a round, so that what was used last is of no use soon: the frames that come
first stay, on the device while there is room, then decoded in main memory while there is room, and all others are
decoded anew each time, by threads, before their step.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any, Literal

import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

ImageType = Literal["uint8", "float32"]

AHEAD = 8
"""Frames that are fetched before they are asked for."""
MAX_WORKERS = 8


class FrameStore(Sequence[dict[str, Any]]):
    """The data of each frame, on the device."""

    def __init__(
        self,
        dataset: InputDataset,
        image_type: ImageType,
        device: torch.device,
        device_bytes: int,
        host_bytes: int,
    ) -> None:
        """
        Args:
            device_bytes: at most so much of the device's memory is kept.
            host_bytes: at most so much of the main memory, where the device has no room; of no meaning on a CPU.
        """
        self._dataset, self._device = dataset, device
        self._image_type: ImageType = image_type
        self._room, self._host_room = device_bytes, host_bytes if device.type == "cuda" else 0
        self._kept: dict[int, dict[str, Any]] = {}
        self._decoded: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()  # of `_decoded` and its room, which threads write
        self._fetched: dict[int, tuple[Future[dict[str, Any]], _Staging | None]] = {}
        self._pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), thread_name_prefix="frames")
        # Made here, by the thread that also records CUDA graphs: pinning memory in another one would break a recording.
        size = _staging_bytes(dataset, image_type)
        staged = device.type == "cuda" and len(dataset) * size > device_bytes
        self._staging = [_Staging(size) for _ in range(AHEAD + 2)] if staged else []
        self.waited_s = 0.0
        """Seconds that steps waited for their frame."""

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, frame: int) -> dict[str, Any]:  # type: ignore[override]
        """A frame's data, on the device. Not to be changed: it may be what is kept."""
        if not 0 <= frame < len(self):
            raise IndexError(frame)
        kept = self._kept.get(frame)
        if kept is not None:
            return kept
        begin = perf_counter()
        self._fetch(frame)
        future, staging = self._fetched.pop(frame)
        try:
            data = future.result()
        except BaseException:
            self._give_back(staging)
            raise
        self.waited_s += perf_counter() - begin
        result = {key: self._upload(value) for key, value in data.items()}
        if staging is not None:
            staging.sent()
            self._give_back(staging)
        size = _bytes_of(result)
        if size <= self._room:
            self._room -= size
            self._kept[frame] = result
            with self._lock:
                if (decoded := self._decoded.pop(frame, None)) is not None:
                    self._host_room += _bytes_of(decoded)
        return result

    def prefetch(self, frames: Sequence[int]) -> None:
        """Begin to fetch what is asked for next, the first `AHEAD` of them."""
        for frame in frames[:AHEAD]:
            if len(self._fetched) >= AHEAD:
                return
            if frame not in self._kept:
                self._fetch(frame)

    def forget(self, frame: int) -> None:
        """Read a frame anew when it is next asked for: its files have changed."""
        if (kept := self._kept.pop(frame, None)) is not None:
            self._room += _bytes_of(kept)
        if (fetched := self._fetched.pop(frame, None)) is not None:
            fetched[0].exception()  # it may be writing into its staging buffer
            self._give_back(fetched[1])
        with self._lock:
            if (decoded := self._decoded.pop(frame, None)) is not None:
                self._host_room += _bytes_of(decoded)

    def _fetch(self, frame: int) -> None:
        if frame not in self._fetched:
            staging = self._staging.pop() if self._staging else None
            if staging is not None:
                staging.wait()
            self._fetched[frame] = (self._pool.submit(self._load, frame, staging), staging)

    def _give_back(self, staging: _Staging | None) -> None:
        if staging is not None:
            self._staging.append(staging)

    def _load(self, frame: int, staging: _Staging | None) -> dict[str, Any]:
        """In a thread, without a call to CUDA."""
        with self._lock:
            data = self._decoded.get(frame)
        if data is None:
            data = self._read(frame)
            size = _bytes_of(data)
            with self._lock:
                if size <= self._host_room:
                    self._host_room -= size
                    self._decoded[frame] = data
        return data if staging is None else staging.filled(data)

    def _read(self, frame: int) -> dict[str, Any]:
        data = self._dataset.get_data(frame, image_type=self._image_type)
        cameras = self._dataset.cameras
        size, expected = tuple(data["image"].shape[:2]), (int(cameras.height[frame]), int(cameras.width[frame]))
        if size != expected:
            raise ValueError(
                f"{self._dataset.image_filenames[frame]} has {size[1]}x{size[0]} pixels, its camera is for "
                f"{expected[1]}x{expected[0]}. Restore the image, or predict the scene again."
            )
        return data

    def _upload(self, value: Any) -> Any:
        return value.to(self._device, non_blocking=True) if isinstance(value, Tensor) else value


class _Staging:
    """Pinned memory for one frame on its way to the GPU: from elsewhere a copy waits for the kernels before it."""

    def __init__(self, size: int) -> None:
        self._bytes = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._sent = torch.cuda.Event()

    def filled(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same data in pinned memory, what does not fit excepted."""
        result, used = {}, 0
        for key, value in data.items():
            size = value.numel() * value.element_size() if isinstance(value, Tensor) else 0
            if isinstance(value, Tensor) and used + size <= len(self._bytes):
                place = self._bytes[used : used + size].view(value.dtype).view(value.shape)
                place.copy_(value)
                result[key], used = place, used + -(-size // 16) * 16
            else:
                result[key] = value
        return result

    def sent(self) -> None:
        """Its copies to the GPU are under way."""
        self._sent.record()

    def wait(self) -> None:
        """Until it may be written over."""
        self._sent.synchronize()


def frame_bytes(dataset: InputDataset, image_type: ImageType) -> int:
    """Bytes of the largest frame with its mask."""
    pixels = int((dataset.cameras.height * dataset.cameras.width).max())
    return pixels * (3 * (1 if image_type == "uint8" else 4) + 1)


def _staging_bytes(dataset: InputDataset, image_type: ImageType) -> int:
    return frame_bytes(dataset, image_type) + 64


def _bytes_of(data: dict[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in data.values() if isinstance(value, Tensor))
