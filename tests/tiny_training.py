"""A tiny network, batch and set of clips, for the tests of training; and what their fixtures are made of."""

from pathlib import Path

import pytest
import torch
from train_narrow import NARROW

from das3r_ns.predictor.network import heads
from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.training.data.loading import PairBatch, ViewBatch
from das3r_ns.predictor.training.data.synthetic_set import SyntheticSet, make_training_clip
from das3r_ns.predictor.training.loop.losses import LossConfig

SMALL = PairwiseNetworkConfig(
    enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32, dec_depth=4, dec_num_heads=2, image_size=(32, 48)
)
MASKS_ALONE = LossConfig(point_weight=0.0, confidence_weighting=False)


def narrow_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads as narrow as those of `train_narrow`, for one test."""
    for name, value in NARROW.items():
        monkeypatch.setattr(heads, name, value)


def clip_set_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of clips that the tests of a module share."""
    return make_clip_set(tmp_path_factory.mktemp("set"))


def make_clip_set(folder: Path) -> Path:
    """Two clips to train on and one to validate on."""
    task = SyntheticSet(folder, clips=2, val_clips=1, frames=5, height=48, width=72)
    for split, number in (("train", 0), ("train", 1), ("val", 0)):
        make_training_clip(task, split, number)
    return task.out


def random_batch(pairs: int = 2) -> PairBatch:
    """Pairs of 32 x 48 pixels whose cameras differ."""
    generator = torch.Generator().manual_seed(1)

    def view() -> ViewBatch:
        T = torch.eye(4).repeat(pairs, 1, 1)
        T[:, :3, 3] = torch.rand(pairs, 3, generator=generator)
        K = torch.tensor([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]]).repeat(pairs, 1, 1)
        rgb = torch.randint(0, 256, (pairs, 32, 48, 3), generator=generator, dtype=torch.uint8)
        dynamic = torch.randint(0, 2, (pairs, 32, 48), generator=generator, dtype=torch.uint8)
        return ViewBatch(rgb, 1 + torch.rand(pairs, 32, 48, generator=generator), dynamic, K, T)

    return PairBatch(view(), view())
