"""Checkpoints of a run: written whole or not at all, read as tensors and nothing else.

Nerfstudio lists the folder of the checkpoints and takes every name in it for a step, so a half-written file lies beside
that folder, not in it.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das3r_ns.files.whole import whole_file
from das3r_ns.runs.config_file import RunError

KEPT = 2
"""Checkpoints that a run keeps: the newest, and the one before it should the newest be damaged by the disk."""
MAX_EXPANDED_BYTES = 1 << 28
"""A stored number may stand for many of the same; beyond this it is not one that a model saved."""
REQUIRED = ("step", "pipeline")


class CheckpointError(RunError):
    """A checkpoint that cannot be used. The message says why."""


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, counted from 0, the newest first; none if there is no such folder."""
    if not Path(folder).is_dir():
        return []
    numbers = [path.stem.removeprefix("step-") for path in Path(folder).glob("step-*.ckpt") if path.is_file()]
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Place of a checkpoint, as nerfstudio names it."""
    return Path(folder) / f"step-{step:09d}.ckpt"


def save_checkpoint(state: dict[str, Any], folder: Path, step: int, keep: int | None = KEPT) -> Path:
    """Write a checkpoint, whole or not at all, and delete those that are older than the `keep` newest.

    Args:
        keep: None keeps all.

    Raises:
        DiskFullError: there is no room; the earlier checkpoints are still there.
        OSError: the folder cannot be written.
    """
    path = checkpoint_path(folder, step)
    with whole_file(path, beside=path.parent.parent, what=f"the checkpoint of step {step + 1}") as part:
        torch.save(state, part)
    # A checkpoint of a later step is of a run that was here before and is not a successor of this one.
    earlier = [old for old in checkpoint_steps(folder) if old <= step]
    for old in earlier[keep:] if keep is not None else ():
        checkpoint_path(folder, old).unlink(missing_ok=True)
    return path


def read_newest(folder: Path, steps: list[int] | None = None) -> tuple[int, dict[str, Any], list[str]]:
    """The newest checkpoint of a run that can be read.

    Args:
        steps: which may be taken, the newest first; all in the folder when None.

    Returns:
        Its step, counted from 0; what it holds, on the CPU; one sentence for each newer one that was skipped.

    Raises:
        CheckpointError: there is none, or none can be read.
    """
    skipped: list[str] = []
    for step in checkpoint_steps(folder) if steps is None else steps:
        try:
            return step, read_checkpoint(checkpoint_path(folder, step)), skipped
        except CheckpointError as error:
            skipped.append(str(error))
    if not skipped:
        raise CheckpointError(f"{folder} holds no checkpoint (step-*.ckpt): the run never came to its first save.")
    raise CheckpointError(f"{folder} holds no checkpoint that can be read. {' '.join(skipped)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. No code in it is executed.

    Raises:
        CheckpointError: it is missing, damaged, holds code, or is not a checkpoint of nerfstudio.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file.")
    try:
        _check_container(path)
        with torch.serialization.safe_globals(_numpy_scalars()):
            _check_globals(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, TypeError,
            KeyError, AttributeError, IndexError, RecursionError, MemoryError, OverflowError, NotImplementedError,
            UnicodeDecodeError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason}).") from error
    _check_state(state, path)
    return state


def _check_container(path: Path) -> None:
    """Torch stores a checkpoint as an uncompressed archive: what claims to hold more than its file is not one."""
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is damaged (it is empty).")
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise CheckpointError(f"{path} is damaged or was not written by this or a recent torch.")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size or any(
            entry.compress_type != zipfile.ZIP_STORED for entry in entries
        ):
            raise CheckpointError(f"{path} is not a checkpoint: its parts are larger than the file.")
        damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged ({damaged} has a wrong checksum).")


def _check_globals(path: Path) -> None:
    """
    Raises:
        CheckpointError: the pickle in it names anything that torch does not take for data.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    # Torch itself refuses them too; it is asked for the names so that what is refused is called what it is.
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    if foreign or any(_calls_extensions(content) for content in pickles):
        names = ", ".join(sorted(foreign)[:3]) or "an extension"
        raise CheckpointError(f"{path} holds code ({names}); nothing was loaded. Do not use it.")


def _calls_extensions(content: bytes) -> bool:
    return any(opcode.name.startswith("EXT") for opcode, _, _ in pickletools.genops(content))


def _check_state(state: Any, path: Path) -> None:
    """
    Raises:
        CheckpointError: it is not what nerfstudio saves, or a tensor in it claims to be larger than what is stored.
    """
    if not isinstance(state, dict) or any(name not in state for name in REQUIRED):
        raise CheckpointError(f"{path} is not a checkpoint of a nerfstudio run (it has no {' or '.join(REQUIRED)}).")
    step, pipeline = state["step"], state["pipeline"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(f"{path} is damaged (its step is {step!r}).")
    if not isinstance(pipeline, dict) or not all(isinstance(name, str) for name in pipeline):
        raise CheckpointError(f"{path} is damaged (its pipeline is {type(pipeline).__name__}).")
    for name, tensor in _tensors(state):
        if tensor.layout is not torch.strided:
            raise CheckpointError(f"{path} is damaged ({name} is not a plain tensor).")
        claimed = tensor.numel() * tensor.element_size()
        if claimed > MAX_EXPANDED_BYTES and claimed > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path} is damaged ({name} claims to be larger than what is stored of it).")
    for name, tensor in pipeline.items():
        # Buffers of some methods hold infinities on purpose; Gaussians never do.
        if "gauss_params." in name and isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path} is damaged ({name} has values that are not finite).")


def _tensors(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if depth > 20:
        raise CheckpointError("a checkpoint is damaged (it is nested too deeply).")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}.{i}", depth + 1)


def _numpy_scalars() -> list[Any]:
    """What torch needs to know to read a NumPy number from a checkpoint without executing anything: nerfstudio's own
    schedulers leave learning rates of that kind there, under the name that their NumPy had for it."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
