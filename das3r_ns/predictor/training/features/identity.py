"""What frozen features follow from, so that those of other weights, data or crops are never taken for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich import get_console
from torch import nn

from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.training.data.order import Order
from das3r_ns.predictor.training.data.sources import BadDataError, PairSource
from das3r_ns.predictor.training.data.views import AugmentConfig
from das3r_ns.predictor.training.features.frozen import RecordLayout
from das3r_ns.predictor.training.features.store import GB, FeatureStore
from das3r_ns.predictor.training.loop.config import TrainPredictorConfig
from das3r_ns.predictor.training.loop.parts import MASK_HEADS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FORMAT = 1
FOLDER = "features"
"""In the folder of a run, where features go if no other folder is given."""
PROBES = 16
"""Pairs of a set whose pixels are looked at to tell one set from another."""


def open_store(
    config: TrainPredictorConfig, fabric: Fabric, network: PairwiseNetwork, sources: Sequence[PairSource], order: Order
) -> FeatureStore:
    """The store of a run; says how much it will hold.

    Raises:
        OSError: the disk is too small.
        ValueError: the folder holds the features of something else.
    """
    with fabric.autocast():
        dtype = torch.bfloat16 if torch.is_autocast_enabled(fabric.device.type) else torch.float32
    layouts = {
        size: RecordLayout.of(network.config, size, config.symmetrise, config.loss.needs_points, dtype)
        for size in config.data.sizes
    }
    folder = config.features.folder or config.out / FOLDER
    store = FeatureStore(config.features, folder, order, layouts, fabric.device, fabric.world_size)
    store.open(store_record(network, sources, order, config.data.augment, layouts[config.data.sizes[0]]))
    if fabric.is_global_zero:
        get_console().print(
            f"features of {config.features.epochs} epochs: {store.total_bytes / GB:.1f} GB; "
            f"{store.disk_bytes / GB:.1f} GB of them are still to be written to {folder}",
            highlight=False,
        )
    return store


def digest_of_weights(network: nn.Module) -> str:
    """A digest of all weights but those of the mask heads."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in network.named_parameters():
        if not name.startswith(MASK_HEADS):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_data(sources: Sequence[PairSource]) -> str:
    """A digest of the sets: which pairs they have, and the pixels of some."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        pairs = np.array([(pair.sequence, pair.first, pair.second) for pair in source.pairs])
        digest.update(pairs.tobytes())
        for number in np.unique(np.linspace(0, len(pairs) - 1, PROBES).round().astype(int)):
            try:
                for frame in source.read(source.pairs[number]):
                    for values in asdict(frame).values():
                        digest.update(np.ascontiguousarray(values).data)
            except BadDataError as error:
                digest.update(error.problem.reason.encode())
    return digest.hexdigest()


def store_record(
    network: nn.Module, sources: Sequence[PairSource], order: Order, augment: AugmentConfig, layout: RecordLayout
) -> dict[str, Any]:
    """What features follow from; how many epochs recur does not matter to those of one."""
    plan = {name: value for name, value in order.as_record().items() if name != "recurring"}
    return {
        "format": FORMAT,
        "weights": digest_of_weights(network),
        "data": digest_of_data(sources),
        "order": plan,
        "crops": asdict(augment),
        "arithmetic": str(layout.dtype),
        "directions": layout.directions,
        "points": layout.points,
    }
