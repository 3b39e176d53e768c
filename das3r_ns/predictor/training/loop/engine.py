"""The engine under the loop: Lightning Fabric, set up for one process or for those that torchrun started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@runtime_checkable
class EngineSettings(Protocol):
    """What the engine reads of a training configuration."""

    precision: Literal["auto", "bfloat16", "float32"]
    device: Literal["auto", "cuda", "cpu"]


def make_fabric(config: EngineSettings) -> Fabric:
    """The engine for this process. Under torchrun, gradients are averaged over its processes (NCCL on GPUs, gloo
    elsewhere).

    Raises:
        ImportError: the engine's package is not installed.
        ValueError: a GPU was asked for and there is none.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise ImportError("training needs Lightning Fabric: pip install 'das3r-ns[train]'") from error
    gpu = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch sees no GPU here. --device cpu trains small networks.")
    if gpu:
        torch.set_float32_matmul_precision("high")  # TF32, as published
        torch.backends.cudnn.benchmark = True  # convolutions are most of a step, in few shapes: trying kernels pays
    bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    processes, on_this_host = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=on_this_host,
        num_nodes=processes // on_this_host,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if processes > 1 else "auto",
        precision="bf16-mixed" if bfloat16 else "32-true",
    )


def gather_lists(fabric: Fabric, own: list[Any]) -> list[list[Any]]:
    """The lists of all processes."""
    if fabric.world_size == 1:
        return [own]
    everyones: list[list[Any]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(everyones, own)
    return everyones
