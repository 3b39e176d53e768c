"""Patch embedding, 2-D rotary positions and the attention blocks of the encoder and the decoders.

Tokens are (batch, n, width) in row-major order of the patch grid; positions are integer (row, column) pairs that a
whole batch shares. Module names are those of the published checkpoints, because they are the state-dict keys.
Written from the descriptions in CroCo v2 (Weinzaepfel et al. 2023), DUSt3R (Wang et al. 2024) and RoFormer (Su 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6

RopeTable = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]
"""Cosine and signed sine per token and element of an attention head (see `rope_table`)."""


def grid_positions(rows: int, columns: int, device: torch.device) -> Int[Tensor, "n 2"]:
    """(row, column) of every token of a patch grid, row by row."""
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))


def rope_table(positions: Int[Tensor, "n 2"], head_dim: int, base: float) -> RopeTable:
    """Cosines and sines that rotate one attention head: its first half by the row, its second half by the column.

    A half of size D uses the frequencies base^(-2m/D) for m < D/2, and element m is paired with m + D/2, so each
    frequency appears twice in a row, not interleaved. The sine of an element is that by which its partner counts:
    negative for the first of a pair. Always float32: angles of some tens of radians need it.
    """
    half = head_dim // 2
    frequencies = base ** (-torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half)
    angles = positions.float()[:, :, None] * frequencies  # n, axis, half / 2
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).flatten(1), torch.cat([-sin, sin], dim=-1).flatten(1)


def rotate(tokens: Float[Tensor, "b n heads d"], table: RopeTable) -> Float[Tensor, "b n heads d"]:
    """Apply a `rope_table` to queries or keys, or to both at once as more heads.

    Computed in float32, returned in the type of `tokens`. Where nothing learns on a GPU, `tokens` itself is
    overwritten and returned: one kernel instead of four.
    """
    if tokens.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        from das3r_ns.predictor.network.rope_kernel import kernel_works, lies_packed, rotate_in_place

        if lies_packed(tokens) and kernel_works(tokens.device):
            return rotate_in_place(tokens, *table)
    cos, sin = (values[:, None] for values in table)
    partners = tokens.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return torch.addcmul(tokens * cos, partners, sin).to(tokens.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation whose result has the type of its input.

    Under autocast PyTorch would turn a bfloat16 input to float32 and give float32, which the next layer turns back.
    The kernel computes in float32 in any case. Weights of another type than the input's are applied in float32.
    """

    def forward(self, input: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        if self.weight is not None and self.weight.dtype != input.dtype:
            return super().forward(input).to(input.dtype)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input)


class PatchEmbed(nn.Module):
    """Cut the image into squares and project each to a token. No norm and no absolute positions."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images of {height} x {width} (rows x columns): both must be multiples of {self.patch_size}. "
                "`preprocess_frames` resizes and crops any frame to such a size."
            )
        return self.proj(images).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Attention among the tokens of one image. One fused projection, in the order query, key, value."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n c"], rope: RopeTable) -> Float[Tensor, "b n c"]:
        heads = self.num_heads
        every = self.qkv(x).unflatten(-1, (3 * heads, -1))
        query, key = rotate(every[:, :, : 2 * heads], rope).transpose(1, 2).split(heads, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, every[:, :, 2 * heads :].transpose(1, 2))
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Tokens of one image (queries) look at those of the other (keys and values), each with its own positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n c"], y: Float[Tensor, "b m c"], rope_x: RopeTable, rope_y: RopeTable
    ) -> Float[Tensor, "b n c"]:
        query, key, value = (
            layer(tokens).unflatten(-1, (self.num_heads, -1))
            for layer, tokens in ((self.projq, x), (self.projk, y), (self.projv, y))
        )
        query, key = rotate(query, rope_x).transpose(1, 2), rotate(key, rope_y).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value.transpose(1, 2))
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.fc2(F.gelu(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: self-attention, then MLP, both residual."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Float[Tensor, "b n c"], rope: RopeTable) -> Float[Tensor, "b n c"]:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))

    def norms_and_readers(self) -> list[tuple[LayerNorm, list[nn.Linear]]]:
        """Each norm with the layers that read its result; nothing else does."""
        return [(self.norm1, [self.attn.qkv]), (self.norm2, [self.mlp.fc1])]


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other image, MLP; all residual. The other image's tokens stay as given."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(width, num_heads)
        self.norm_y = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm2 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross_attn = CrossAttention(width, num_heads)
        self.norm3 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(
        self, x: Float[Tensor, "b n c"], y: Float[Tensor, "b m c"], rope_x: RopeTable, rope_y: RopeTable
    ) -> Float[Tensor, "b n c"]:
        x = x + self.attn(self.norm1(x), rope_x)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), rope_x, rope_y)
        return x + self.mlp(self.norm3(x))

    def norms_and_readers(self) -> list[tuple[LayerNorm, list[nn.Linear]]]:
        """Each norm with the layers that read its result; nothing else does."""
        cross = self.cross_attn
        return [
            (self.norm1, [self.attn.qkv]),
            (self.norm2, [cross.projq]),
            (self.norm_y, [cross.projk, cross.projv]),
            (self.norm3, [self.mlp.fc1]),
        ]
