"""Edits of the masks that arrive while a run is trained on their scene.

Every few steps the state of `edits.json` is asked for, which takes a microsecond; when it changed, the maps of the
frames that the edits speak of are made again and the model goes on with them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from das3r_ns.dataparser.frame_store import FrameStore
from das3r_ns.scene.edited_masks import edited_masks
from das3r_ns.scene.edits import EditedFrames, EditStamp, describe_edits, stamp_of_edits
from das3r_ns.scene.reading import SceneFiles
from das3r_ns.scene.types import SceneFolderError

EVERY_STEPS = 10


class LiveEdits:
    """Watches the edits of the scene that a pipeline is trained on.

    Args:
        pipeline: with a `Das3rModel` that has maps; for any other nothing is watched.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        metadata = pipeline.datamanager.train_dataset.metadata
        scene = metadata.get("scene_folder")
        maps = getattr(pipeline.model, "maps", None)
        self._scene = None if scene is None or maps is None else Path(scene)
        self._frames: list[int] = [int(i) for i in metadata.get("frame_index", ())]
        self._stamp: EditStamp | None = None
        self._touched: set[int] = set()
        """Training frames of which an edit speaks, or spoke."""
        self._due = False
        self._files: SceneFiles | None = None
        if self._scene is not None and (stamp := stamp_of_edits(self._scene)) is not None:
            edits = self._read()
            self._stamp, self._touched = stamp, self._of_training(edits)
            CONSOLE.print(f"Edits of the masks: {describe_edits(edits.edits.done)}.", highlight=False)

    def poll(self, step: int) -> bool:
        """Take over what changed since the last time; returns whether anything did."""
        if self._scene is None or not (self._due or step % EVERY_STEPS == 0):
            return False
        stamp = stamp_of_edits(self._scene)
        if stamp == self._stamp and not self._due:
            return False
        self._due = False
        return self._take_over(stamp, step)

    def edited_maps(self) -> dict[int, Float[Tensor, "h w"]]:
        """`dynamic_prob` of the training frames of which an edit speaks: a checkpoint belongs to these."""
        return {i: self._pipeline.model.dynamic_prob[i].cpu() for i in sorted(self._touched)}

    def resume(self, maps: Mapping[int, Float[Tensor, "h w"]]) -> None:
        """Take over, before the next step, what was edited since a checkpoint with maps as of `edited_maps`.

        The dataparser has read the edits as they are now; the checkpoint's maps began from those of then.
        """
        if self._scene is None or not (maps or self._touched):
            return
        files, model = self._scene_files(), self._pipeline.model
        for i in {*self._touched, *maps}:
            before = maps[i] if i in maps else torch.from_numpy(files.dynamic_prob(self._frames[i]))
            model.dynamic_prob[i] = before.to(model.dynamic_prob)
        self._touched |= set(maps)
        self._due = True

    def _scene_files(self) -> SceneFiles:
        assert self._scene is not None
        if self._files is None:
            self._files = SceneFiles.open(self._scene)
        return self._files

    def _read(self) -> EditedFrames:
        assert self._scene is not None
        return EditedFrames.of(self._scene, self._scene_files().names)

    def _of_training(self, edits: EditedFrames) -> set[int]:
        spoken = set(edits.touched())
        return {i for i, frame in enumerate(self._frames) if frame in spoken}

    def _take_over(self, stamp: EditStamp | None, step: int) -> bool:
        start = time.perf_counter()
        try:
            edits = self._read()
            touched = self._of_training(edits)
            maps = {i: self._map(edits, self._frames[i]) for i in touched | self._touched}
        except (SceneFolderError, OSError) as error:
            CONSOLE.print(f"Edits of the masks were not taken over: {error}", style="yellow", soft_wrap=True)
            self._stamp = stamp  # until they change again
            return False
        self._stamp, self._touched = stamp, touched
        pipeline = self._pipeline
        change = pipeline.model.take_dynamic_prob(maps, {i: self._image(i) for i in maps})
        if not change:
            return False
        self._replace_masks()
        CONSOLE.log(
            f"Step {step}: edits of the masks taken over ({describe_edits(edits.edits.done)}): "
            f"{len({*change.moving, *change.static})} frames changed, {change.removed} Gaussians removed, "
            f"{change.added} added, in {time.perf_counter() - start:.1f} s"
        )
        return True

    def _map(self, edits: EditedFrames, frame: int) -> Float[Tensor, "h w"]:
        return torch.from_numpy(edits.apply(frame, self._scene_files().dynamic_prob(frame)))

    def _image(self, training_frame: int) -> Float[Tensor, "H W 3"]:
        image = self._pipeline.datamanager.cached_train[training_frame]["image"]
        return image[..., :3].float() / 255 if image.dtype == torch.uint8 else image[..., :3]

    def _replace_masks(self) -> None:
        """Masks that metrics are measured over."""
        manager, files = self._pipeline.datamanager, self._scene_files()
        stored = files.mask_paths()
        if stored is None:
            return
        masks = edited_masks(files.folder, files.names, stored)
        for dataset, cached in ((manager.train_dataset, "cached_train"), (manager.eval_dataset, "cached_eval")):
            names = dataset._dataparser_outputs.mask_filenames
            if names is None:
                continue
            for i, frame in enumerate(dataset.metadata["frame_index"].tolist()):
                if names[i] == masks[frame]:
                    continue
                names[i] = masks[frame]
                store = manager.__dict__.get(cached)  # of nerfstudio's cached property: nothing is read for this
                if isinstance(store, FrameStore):
                    store.forget(i)
                elif store is not None and "mask" in store[i]:
                    data = store[i]
                    keep = cv2.imread(str(masks[frame]), cv2.IMREAD_GRAYSCALE) > 0
                    data["mask"] = torch.from_numpy(keep)[..., None].to(data["mask"])
