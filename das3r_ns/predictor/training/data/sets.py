"""The sets of a run: those to train on, and those to validate on."""

from __future__ import annotations

from das3r_ns.predictor.training.data.clips import ClipFolders
from das3r_ns.predictor.training.data.pointodyssey import PointOdyssey
from das3r_ns.predictor.training.data.sintel import Sintel
from das3r_ns.predictor.training.data.sources import PairSource
from das3r_ns.predictor.training.loop.config import DataConfig


def training_sets(config: DataConfig, seed: int) -> list[PairSource]:
    """Raises FileNotFoundError or NothingLeftError: a set is missing, or nothing of it can be used."""
    sets: list[PairSource] = []
    if config.pointodyssey is not None:
        sets.append(PointOdyssey(config.pointodyssey / "train", config.max_stride, seed))
    if config.clips is not None:
        sets.append(ClipFolders(config.clips / "train", config.max_stride, seed))
    return sets


def validation_sets(config: DataConfig) -> list[PairSource]:
    """The validation splits of the training sets that are there, and Sintel. Raises as `training_sets` does."""
    sets: list[PairSource] = []
    if config.pointodyssey is not None and (config.pointodyssey / "test").is_dir():
        sets.append(PointOdyssey(config.pointodyssey / "test", config.max_stride, seed=0))
    if config.clips is not None and (config.clips / "val").is_dir():
        sets.append(ClipFolders(config.clips / "val", config.max_stride, seed=0))
    if config.sintel is not None:
        sets.append(Sintel(config.sintel, config.max_stride, seed=0))
    return sets
