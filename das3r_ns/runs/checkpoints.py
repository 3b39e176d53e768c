"""Checkpoints of a run: written whole or not at all, read as tensors and nothing else.

Nerfstudio lists the folder of the checkpoints and takes every name in it for a step, so a half-written file lies beside
that folder, not in it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
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
MAX_PICKLE_BYTES = 1 << 28
"""The pickle of a checkpoint holds names and shapes only; the numbers lie beside it."""
DATA_GLOBALS = frozenset(
    {"collections.OrderedDict", "torch.Size", "torch.device", "torch.nn.parameter.Parameter", "torch.Tensor",
     "numpy.dtype", "_codecs.encode", "torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2"}
)  # fmt: skip
"""What a pickle of tensors may name, beside storages and the functions that put tensors together."""
MAX_DEPTH = 20
"""Dictionaries and lists within one another; nerfstudio nests some six."""
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
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, TypeError,
            KeyError, AttributeError, IndexError, RecursionError, MemoryError, OverflowError, NotImplementedError,
            UnicodeDecodeError, struct.error) as error:  # fmt: skip
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
        start = file.read(4)
    if start != b"PK\x03\x04":
        _refuse_code(_globals_of_pickles(path.read_bytes() if size <= MAX_PICKLE_BYTES else b""), path)
        raise CheckpointError(f"{path} is damaged or was not written by torch.save of a recent torch.")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any("/code/" in entry.filename for entry in entries):
            raise CheckpointError(f"{path} holds code (a TorchScript module); nothing was loaded. Do not use it.")
        if sum(entry.file_size for entry in entries) > size or any(
            entry.compress_type != zipfile.ZIP_STORED for entry in entries
        ):
            raise CheckpointError(f"{path} is not a checkpoint: its parts are larger than the file.")
        damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged ({damaged} has a wrong checksum).")
        for entry in entries:
            if entry.filename.endswith(".pkl") and entry.file_size <= MAX_PICKLE_BYTES:
                _refuse_code(_globals_of_pickles(archive.read(entry)), path)


def _refuse_code(names: set[str], path: Path) -> None:
    """
    Raises:
        CheckpointError: one of the names that a pickle would call is not data. Torch itself refuses them too; they are
            looked at here so that what is refused is called what it is.
    """
    foreign = sorted(name for name in names if not _is_data(name))
    if foreign:
        raise CheckpointError(f"{path} holds code ({', '.join(foreign[:3])}); nothing was loaded. Do not use it.")


def _is_data(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return (
        name in DATA_GLOBALS
        or (module in ("torch", "torch.storage") and attribute.endswith("Storage"))
        or (module == "torch._utils" and attribute.startswith("_rebuild_"))
        or (module in ("numpy.core.multiarray", "numpy._core.multiarray") and attribute == "scalar")
        or module in ("numpy.dtypes",)
        or isinstance(getattr(torch, attribute, None) if module == "torch" else None, torch.dtype)
    )


def _globals_of_pickles(content: bytes) -> set[str]:
    """Names that the pickles in `content` (one after the other) would look up, as far as they can be read."""
    names: set[str] = set()
    stream = io.BytesIO(content)
    try:
        while stream.tell() < len(content):
            recent: list[str] = []
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL" or opcode.name == "INST":
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(recent[-2:]) or "a name on the stack")
                elif opcode.name.startswith("EXT"):
                    names.add("an extension")
                elif isinstance(argument, str):
                    recent.append(argument)
    except (ValueError, EOFError, IndexError, UnicodeDecodeError, OverflowError, MemoryError):
        pass  # what follows is cut off, or the raw numbers of an old format
    return names


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
    for name, tensor in _tensors(state, path):
        if tensor.layout is not torch.strided:
            raise CheckpointError(f"{path} is damaged ({name} is not a plain tensor).")
        claimed = tensor.numel() * tensor.element_size()
        if claimed > MAX_EXPANDED_BYTES and claimed > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path} is damaged ({name} claims to be larger than what is stored of it).")
    for name, tensor in pipeline.items():
        # Buffers of some methods hold infinities on purpose; Gaussians never do.
        if "gauss_params." in name and isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path} is damaged ({name} has values that are not finite).")


def _tensors(value: Any, path: Path, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{path} is damaged (it is nested too deeply).")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, path, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, path, f"{name}.{i}", depth + 1)


def _numpy_scalars() -> list[Any]:
    """What torch needs to know to read a NumPy number from a checkpoint without executing anything: nerfstudio's own
    schedulers leave learning rates of that kind there, under the name that their NumPy had for it."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
