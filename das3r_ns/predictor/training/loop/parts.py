"""Which parameters learn, and with which weight decay."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from das3r_ns.predictor.network.model import PairwiseNetwork

TrainedPart = Literal["heads", "decoder", "all"]
"""heads: the two mask heads (published); decoder: everything but the encoder; all: everything."""

ENCODER = ("patch_embed.", "enc_blocks.", "enc_norm.")
POINT_HEADS = ("downstream_head1.", "downstream_head2.")
MASK_HEADS = ("downstream_head_dynamic_mask1.", "downstream_head_dynamic_mask2.")
NEVER_USED = ("mask_token", "refinenet4.resConfUnit1.")
"""In the checkpoints without influence on any output; data-parallel training would wait for their gradients."""


def select_parts(network: PairwiseNetwork, train: TrainedPart, needs_points: bool) -> dict[str, nn.Parameter]:
    """Mark what learns (`requires_grad`), freeze the rest, and return what learns by its name.

    Args:
        needs_points: whether the loss looks at the point heads.
    """
    learning: dict[str, nn.Parameter] = {}
    for name, parameter in network.named_parameters():
        learns = name.startswith(MASK_HEADS) or (
            train != "heads"
            and (train == "all" or not name.startswith(ENCODER))
            and (needs_points or not name.startswith(POINT_HEADS))
        )
        learns = learns and not any(part in name for part in NEVER_USED)
        parameter.requires_grad_(learns)
        if learns:
            learning[name] = parameter
    return learning


def parameter_groups(learning: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: weights of two or more dimensions decay, biases and norms do not."""
    decaying = [parameter for parameter in learning.values() if parameter.ndim >= 2]
    others = [parameter for parameter in learning.values() if parameter.ndim < 2]
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def compile_parts(network: PairwiseNetwork) -> None:
    """Have torch.compile fuse blocks and heads, each by itself, at their first call."""
    heads = (network.downstream_head1, network.downstream_head2, *network.mask_heads)
    for module in (*network.enc_blocks, *network.dec_blocks, *network.dec_blocks2, *heads):
        module.compile()
