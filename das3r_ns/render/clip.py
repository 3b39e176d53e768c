"""The clip of a run: its frames in order, when each is shown, and what moves in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def clip_frames(pipeline: Any) -> list[tuple[Any, int]]:
    """Every frame of the clip in order, held-out ones included, as (dataset, number in it)."""
    frames: dict[int, tuple[Any, int]] = {}
    for dataset in (pipeline.datamanager.eval_dataset, pipeline.datamanager.train_dataset):
        if dataset is None:
            continue
        metadata = dataset.cameras.metadata or {}
        places = metadata["frame_index"].flatten().tolist() if "frame_index" in metadata else range(len(dataset))
        frames.update({int(place): (dataset, i) for i, place in enumerate(places)})
    return [frames[place] for place in sorted(frames)]


def dynamic_prob(pipeline: Any, dataset: Any, i: int) -> Float[Tensor, "m n"]:
    """What moves in a frame of `clip_frames`, 0 static .. 1 moving: what was predicted, with the user's corrections, at
    map resolution; of a frame held out, its mask. [1, 1] of 0 where nothing was given."""
    model = pipeline.model
    if dataset is pipeline.datamanager.train_dataset and model.maps is not None:
        return model.dynamic_prob[i]
    mask = dataset.get_data(i).get("mask")
    return torch.zeros(1, 1) if mask is None else 1 - mask[..., 0].float()


def clip_fps(pipeline: Any) -> float | None:
    """Frames per second of the clip, from its scene folder; None for data that has none."""
    described = _scene_description(pipeline)
    return None if described is None else float(described.get("fps", 30.0))


def clip_times(pipeline: Any, num_frames: int) -> list[float] | None:
    """When each frame of the clip is shown, seconds, from its scene folder; None where it does not say."""
    times_s = (_scene_description(pipeline) or {}).get("times_s")
    return times_s if isinstance(times_s, list) and len(times_s) == num_frames > 1 else None


def _scene_description(pipeline: Any) -> dict[str, Any] | None:
    dataset = pipeline.datamanager.train_dataset
    folder = None if dataset is None else dataset.metadata.get("scene_folder")
    described = None if folder is None else Path(folder) / "predictor.json"
    if described is None or not described.is_file():
        return None
    return json.loads(described.read_text(encoding="utf-8"))
