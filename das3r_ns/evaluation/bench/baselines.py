"""nerfstudio's own splatfacto on our scene folders: same frames, same cameras, same seed points, same held-out frames.

Class paths of this file stand in the `config.yml` of every baseline run: names here are permanent.
"""

from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from torch import nn

from das3r_ns.dataparser.parser import Das3rDataParser, Das3rDataParserConfig
from das3r_ns.files.saved_config import SavedConfig


@dataclass
class UnmaskedDataParserConfig(Das3rDataParserConfig):
    """A scene folder without its masks: every pixel is trained on."""

    _target: type = field(default_factory=lambda: UnmaskedDataParser)
    """Class that reads it."""


@dataclass
class UnmaskedDataParser(Das3rDataParser):
    """See `UnmaskedDataParserConfig`."""

    config: Das3rDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        return replace(super()._generate_dataparser_outputs(split, **kwargs), mask_filenames=None)


@dataclass
class SplatfactoBaselineConfig(SavedConfig, SplatfactoModelConfig):
    """Splatfacto with its defaults."""

    _target: type = field(default_factory=lambda: SplatfactoBaseline)


class SplatfactoBaseline(SplatfactoModel):
    """Splatfacto as it is, with one difference: it builds no LPIPS, whose weights it would fetch from the network and
    without which it would not even start."""

    def populate_modules(self) -> None:
        with mock.patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", _NoMetric):
            super().populate_modules()


class _NoMetric(nn.Module):
    def __init__(self, **kwargs: object) -> None:
        super().__init__()

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return torch.tensor(torch.nan)
