"""What a training needs beside its checkpoint to go on as if it had never stopped.

Nerfstudio's checkpoint holds parameters, optimizers and schedules. Which frames are still to come in this round, the
random numbers, and what density control has counted since its last turn lie in `resume/step-*.pt` beside the folder of
the checkpoints; a checkpoint without it is resumed as nerfstudio does, with those begun anew.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das3r_ns.files.whole import whole_file
from das3r_ns.model.remarking import ErrorMemory

FOLDER = "resume"


def resume_path(checkpoints: Path, step: int) -> Path:
    """Place of what belongs to a checkpoint."""
    return Path(checkpoints).parent / FOLDER / f"step-{step:09d}.pt"


def save_rest(path: Path, pipeline: Any, keep: list[int]) -> None:
    """Write what a checkpoint of nerfstudio does not hold, and delete that of steps that are not kept.

    Raises:
        DiskFullError: there is no room.
    """
    with whole_file(path, what="what a resumed training needs") as part:
        torch.save(_rest(pipeline), part)
    kept = {f"step-{step:09d}" for step in keep} | {path.stem}
    for old in path.parent.glob("step-*.pt"):
        if old.stem not in kept:
            old.unlink(missing_ok=True)


def load_rest(path: Path, pipeline: Any) -> bool:
    """Put it back; returns whether it was there and fitted."""
    if not path.is_file():
        return False
    try:
        rest = torch.load(path, map_location="cpu", weights_only=True)
        _restore(rest, pipeline)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError):
        return False
    return True


def _rest(pipeline: Any) -> dict[str, Any]:
    manager, model = pipeline.datamanager, pipeline.model
    name, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (nerfstudio draws from it)
    generator = getattr(manager, "random_generator", None)
    errors, ground = getattr(model, "errors", None), getattr(model, "hidden_ground", None)
    live = getattr(pipeline, "live_edits", None)
    edited = {} if live is None else live.edited_maps()
    return {
        **({"edited_maps": edited} if edited else {}),
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "sampling": None if generator is None else generator.getstate(),
        "train_unseen": [int(i) for i in manager.train_unseen_cameras],
        "eval_unseen": [int(i) for i in manager.eval_unseen_cameras],
        "density": {key: value for key, value in model.strategy_state.items() if _is_data(value)},
        "errors": None if errors is None else errors.errors,
        # Made when a frame is first seen, at the size that it had then.
        "hidden_ground": {} if ground is None else {frame: list(made) for frame, made in ground.made.items()},
    }


def _is_data(value: Any) -> bool:
    return value is None or isinstance(value, (Tensor, int, float, bool, str))


def _restore(rest: dict[str, Any], pipeline: Any) -> None:
    manager, model = pipeline.datamanager, pipeline.model
    frames = model.num_train_data
    unseen, unseen_eval = rest["train_unseen"], rest["eval_unseen"]
    if not unseen or min(unseen) < 0 or max(unseen) >= frames:
        raise ValueError("it belongs to other frames")
    density = dict(rest["density"])
    for key, value in density.items():
        if isinstance(value, Tensor):
            if value.ndim > 0 and len(value) != model.num_points:
                raise ValueError("it belongs to other Gaussians")
            density[key] = value.to(model.device)
    python, (name, keys, *more), sampling = rest["python"], rest["numpy"], rest["sampling"]
    if rest["errors"] is not None:
        model.errors = ErrorMemory(model.dynamic_prob.shape, model.device)
        model.errors.errors.copy_(rest["errors"])
    if rest["hidden_ground"] and model.hidden_ground is not None:
        for frame, (image, hidden) in rest["hidden_ground"].items():
            model.hidden_ground.made[frame] = (image.to(model.device), hidden.to(model.device))
    pipeline.edited_maps_of_checkpoint = rest.get("edited_maps", {})
    model.strategy_state.update(density)
    manager.train_unseen_cameras, manager.eval_unseen_cameras = list(unseen), list(unseen_eval)
    if sampling is not None:
        manager.random_generator = random.Random()
        manager.random_generator.setstate(_state(sampling))
    random.setstate(_state(python))
    np.random.set_state((name, np.array(keys, np.uint32), *more))  # noqa: NPY002
    torch.set_rng_state(rest["torch"])
    if torch.cuda.is_available() and len(rest["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(rest["cuda"])


def _state(stored: Any) -> tuple[Any, ...]:
    version, numbers, gauss = stored
    return version, tuple(numbers), gauss
