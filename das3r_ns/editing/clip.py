"""A scene folder as the editor looks at it: frame by frame, with as much in memory as fits a bound.

Images are read when they are asked for; of the maps only `dynamic_prob` is held, with 8 bits a pixel. Flow between
frames is computed when a click or a cue needs it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from das3r_ns import geometry
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.scene.edit_store import EditStore
from das3r_ns.scene.edits import Edit, EditedFrames
from das3r_ns.scene.reading import SceneFiles
from das3r_ns.scene.types import DYNAMIC_THRESHOLD

IMAGE_MEMORY_BYTES = 256 << 20
"""Decoded images that are kept."""
FLOW_MEMORY_BYTES = 256 << 20
LAYER_MEMORY_BYTES = 128 << 20
"""Layers of edits at the size of the maps, a bit a pixel: those of thirty edits through 300 frames."""
SPEED_OFFSETS = (1, 2)
"""Distances in frames, both ways, from which an object's own motion is measured while it is carried along."""
MAX_LAYER_SIDE_PX = 1024
"""Longer side of the layers: outlines drawn by hand are no finer."""

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """What was computed, as long as memory allows; the least recently used goes first. Threads may share one."""

    def __init__(self, memory_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._left, self._size_of = memory_bytes, size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key; made when it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._left -= self._size_of(value)
            while self._left < 0 and len(self._values) > 1:
                self._left += self._size_of(self._values.popitem(last=False)[1])
        return value

    def forget(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._left += sum(map(self._size_of, self._values.values()))
            self._values.clear()


class EditedClip:
    """Frames, masks and flow of a scene folder.

    Raises:
        SceneFolderError: the folder is damaged.
    """

    def __init__(self, scene: Path) -> None:
        self.files = SceneFiles.open(scene)
        self.folder = self.files.folder
        self._images: Kept[np.ndarray] = Kept(IMAGE_MEMORY_BYTES, lambda image: image.nbytes)
        first = self.files.dynamic_prob(0)
        self.map_size: tuple[int, int] = (first.shape[0], first.shape[1])
        """Height and width of `dynamic_prob` and flow."""
        self._predicted = np.empty((len(self.files), *self.map_size), np.uint8)
        # Reading all of it now is what makes the timeline, and takes 1 to 2 ms a frame.
        parallel_for(self._read_predicted, len(self.files))

    def _read_predicted(self, frame: int) -> None:
        probability = self.files.dynamic_prob(frame)
        if probability.shape != self.map_size:
            raise ValueError(
                f"{self.folder}: dynamic_prob of frame {frame + 1} differs in size from that of the first."
            )
        self._predicted[frame] = np.round(probability * 255)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def layer_size(self) -> tuple[int, int]:
        """Height and width of the layers of new edits: of the images, up to a bound."""
        height, width = self.files.image_size
        factor = min(1.0, MAX_LAYER_SIDE_PX / max(height, width))
        return max(1, round(height * factor)), max(1, round(width * factor))

    def image(self, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """RGB image of a frame."""
        return self._images.get(frame, lambda: np.ascontiguousarray(self.files.image(frame)))

    def map_image(self, frame: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB image of a frame at the size of the maps."""

        def small() -> UInt8[np.ndarray, "h w 3"]:
            return cv2.resize(self.image(frame), self.map_size[::-1], interpolation=cv2.INTER_AREA)

        return self._images.get(("map", frame), small)

    def predicted(self, frame: int) -> Float32[np.ndarray, "h w"]:
        """`dynamic_prob` of a frame without edits."""
        return self._predicted[frame].astype(np.float32) / np.float32(255)

    @cached_property
    def flow(self) -> FlowBetweenFrames:
        """Optical flow between frames, in map pixels."""
        return FlowBetweenFrames(self.map_image, self.map_size, DisFlow(), FLOW_MEMORY_BYTES)

    @cached_property
    def posed(self) -> PosedFlow:
        """Flow with the cameras of the scene."""
        K = geometry.rescale_intrinsics(self.files.K, self.files.image_size, self.map_size).numpy()
        known = np.array(self.files.pose_known, bool)
        return PosedFlow(self.flow, self.files.T_world_camera.numpy(), K, known)

    def speed(self, frame: int) -> Float32[np.ndarray, "h w"] | None:
        """Motion that the camera does not explain, map pixels a frame; None where the camera is not known."""
        fit = self.posed.fit(frame, SPEED_OFFSETS) if self.posed.pose_known[frame] else None
        return None if fit is None else np.linalg.norm(fit.velocity, axis=0)

    @property
    def quality(self) -> dict[str, Any] | None:
        """The quality record of `predictor.json`: `frames` holds one list a measure."""
        record = self.files.provenance.get("quality")
        return record if isinstance(record, dict) else None

    def trust(self) -> list[float] | None:
        """How far the camera of each frame is trusted, 0 to 1; None where the predictor left no record."""
        values = (self.quality or {}).get("frames", {}).get("trust")
        if not isinstance(values, list) or len(values) != len(self):
            return None
        return [1.0 if value is None else float(value) for value in values]


class Masks:
    """What moves in each frame of a clip, with the edits as they are now."""

    def __init__(self, clip: EditedClip, store: EditStore) -> None:
        self._clip, self._store = clip, store
        self._edited = EditedFrames.of(clip.folder, clip.files.names)
        self._layers: Kept[np.ndarray] = Kept(LAYER_MEMORY_BYTES, lambda packed: packed.nbytes)
        self._shares: dict[tuple[int, tuple[str, ...]], float] = {}

    def update(self) -> None:
        """Take over the edits of the store, after they changed."""
        names = self._clip.files.names
        edits = self._store.edits
        self._edited = EditedFrames(self._clip.folder, edits, edits.places(names))

    def edits_of(self, frame: int) -> tuple[str, ...]:
        """Ids of the edits that speak of a frame, in order."""
        return tuple(edit.id for edit in self._edited.speak_of(frame))

    def moving(self, frame: int) -> Bool[np.ndarray, "h w"]:
        """What counts as moving, at the size of the maps."""
        moving = self._clip.predicted(frame) > DYNAMIC_THRESHOLD
        for edit in self._edited.speak_of(frame):
            moving[self._layer(frame, edit)] = edit.moving
        return moving

    def told(self, frame: int) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """What edits call moving, and what they call static, at the size of the maps."""
        moving, static = (np.zeros(self._clip.map_size, bool) for _ in range(2))
        for edit in self._edited.speak_of(frame):
            layer = self._layer(frame, edit)
            moving[layer], static[layer] = edit.moving, not edit.moving
        return moving, static

    def shares(self) -> list[float]:
        """Share of each frame that moves. What no edit changed since the last time is not looked at again."""
        keys = [(frame, self.edits_of(frame)) for frame in range(len(self._clip))]
        missing = [key for key in keys if key not in self._shares]

        def measure(k: int) -> None:
            self._shares[missing[k]] = float(self.moving(missing[k][0]).mean())

        parallel_for(measure, len(missing))
        return [self._shares[key] for key in keys]

    def _layer(self, frame: int, edit: Edit) -> Bool[np.ndarray, "h w"]:
        size = self._clip.map_size
        packed = self._layers.get((frame, edit.id), lambda: np.packbits(self._edited.layer(frame, edit, size)))
        return np.unpackbits(packed, count=size[0] * size[1]).reshape(size).astype(bool)
