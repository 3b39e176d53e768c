"""A copy of the network with its weights in bfloat16, for what does not learn.

Autocast alone keeps float32 weights and turns them to bfloat16 again and again, and its cache of the results does not
hold for frozen weights. The copy has them turned once. The norms keep their precision: an affine norm before a linear
layer is part of that layer, so its weights are multiplied in, in float32, before the rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from das3r_ns.predictor.network.heads import Float32Conv
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.transformer import DecoderBlock, EncoderBlock


@torch.no_grad()
def bfloat16_copy(network: PairwiseNetwork, learning: Iterable[nn.Module] = ()) -> PairwiseNetwork:
    """The network to run under bfloat16 autocast in place of the given one, whose weights stay as they are.

    Args:
        learning: parts of the network that the copy shares instead, float32 weights and all.
    """
    shared: dict[int, object] = {id(part): part for whole in learning for part in whole.modules()}
    weights: dict[int, object] = {id(weight): weight for weight in network.parameters()}
    twin = copy.deepcopy(network, shared | weights)  # all weights are shared at first
    own = [module for module in twin.modules() if id(module) not in shared]
    for block in own:
        if isinstance(block, (EncoderBlock, DecoderBlock)):
            for norm, readers in block.norms_and_readers():
                for layer in readers:
                    layer.bias = _frozen(layer.bias + layer.weight @ norm.bias)
                    layer.weight = _frozen(layer.weight * norm.weight)
                norm.weight = norm.bias = None  # type: ignore[assignment]
    for module in own:
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) and not isinstance(module, Float32Conv):
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, _frozen(weight.to(torch.bfloat16)))
    return twin


def _frozen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)
