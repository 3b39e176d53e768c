"""The dataparser `das3r-data`: video, folder of images, nerfstudio dataset or scene folder in, cameras, masks and
seed points out. Predicting happens behind `cached_scene`, once; nerfstudio builds a dataparser twice in each run and
again in each later command."""

from dataclasses import dataclass, field
from pathlib import Path

from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs

from das3r_ns.dataparser.cache import cached_scene
from das3r_ns.dataparser.cache_folder import DEFAULT_CACHE
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.outputs import EvalMode, outputs_of_scene


@dataclass
class Das3rDataParserConfig(PredictionOptions, DataParserConfig):
    """A casual video (or images, or a scene predicted before) as a nerfstudio dataset."""

    _target: type = field(default_factory=lambda: Das3rDataParser)
    """Class that reads it."""
    data: Path = Path()
    """Video file, folder of images, folder with a transforms.json, or scene folder."""
    cache_dir: Path = DEFAULT_CACHE
    """Folder in which predicted scenes are kept, one folder a clip, for every later command to find."""
    eval_mode: EvalMode = "all"
    """`all` trains and evaluates on all frames; `paper` holds out frames 5, 15, 25, ... as the paper does; `interval`
    every `eval_interval`-th."""
    eval_interval: int = 8
    """Distance of the frames that `interval` holds out, beginning with the first frame."""
    max_points: int | None = 300_000
    """Gaussians to start from at most: of static pixels, every surface once. None or 0 takes every pixel of every
    training frame."""


@dataclass
class Das3rDataParser(DataParser):
    """See `Das3rDataParserConfig`."""

    config: Das3rDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.eval_interval < 2:
            raise ValueError(f"--eval-interval must be 2 or more, got {config.eval_interval}")
        if config.max_points is not None and config.max_points < 0:
            raise ValueError(f"--max-points must not be negative, got {config.max_points}")
        folder = cached_scene(config.data, config, config.cache_dir)
        return outputs_of_scene(folder, split, config.eval_mode, config.eval_interval, config.max_points)
