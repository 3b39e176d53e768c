"""The pairwise network: two images in, a pointmap, a confidence and a dynamic probability for each out.

Both pointmaps are in the frame of camera 1 (OpenCV axes), up to one scale per pair. The network is usable in parts:
`encode` once per frame, `decode` once per directed pair, then the heads that are wanted. Parameter names are the keys
of the published checkpoints. Note: CC BY-NC-SA applies to the published weights, not to this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.heads import mask_head, point_head
from das3r_ns.predictor.network.transformer import (
    LAYER_NORM_EPS,
    DecoderBlock,
    EncoderBlock,
    LayerNorm,
    PatchEmbed,
    grid_positions,
    rope_table,
)

MIN_NORM = 1e-8


@dataclass(frozen=True)
class PairPrediction:
    """What the network says about a batch of directed pairs (image 1, image 2)."""

    pointmap1: Float[Tensor, "b h1 w1 3"]  # of image 1, in the frame of camera 1
    confidence1: Float[Tensor, "b h1 w1"]  # above 1, higher is surer
    dynamic_prob1: Float[Tensor, "b h1 w1"]  # 0 static .. 1 moving
    pointmap2: Float[Tensor, "b h2 w2 3"]  # of image 2, in the frame of camera 1
    confidence2: Float[Tensor, "b h2 w2"]
    dynamic_prob2: Float[Tensor, "b h2 w2"]


class PairwiseNetwork(nn.Module):
    """Siamese encoder, two decoders that look at one another, point and mask heads for each image."""

    def __init__(self, config: PairwiseNetworkConfig) -> None:
        super().__init__()
        self.config = c = config
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.dec_embed_dim))  # in the checkpoints; never read
        self.patch_embed = PatchEmbed(c.patch_size, c.enc_embed_dim)
        self.enc_blocks = nn.ModuleList(
            [EncoderBlock(c.enc_embed_dim, c.enc_num_heads, c.mlp_ratio) for _ in range(c.enc_depth)]
        )
        self.enc_norm = LayerNorm(c.enc_embed_dim, eps=LAYER_NORM_EPS)
        self.decoder_embed = nn.Linear(c.enc_embed_dim, c.dec_embed_dim)
        self.dec_blocks, self.dec_blocks2 = (
            nn.ModuleList([DecoderBlock(c.dec_embed_dim, c.dec_num_heads, c.mlp_ratio) for _ in range(c.dec_depth)])
            for _ in range(2)
        )
        self.dec_norm = LayerNorm(c.dec_embed_dim, eps=LAYER_NORM_EPS)
        self._initialise_transformer()
        self.downstream_head1 = point_head(c.enc_embed_dim, c.dec_embed_dim)
        self.downstream_head2 = point_head(c.enc_embed_dim, c.dec_embed_dim)
        self.downstream_head_dynamic_mask1 = mask_head(c.enc_embed_dim, c.dec_embed_dim)
        self.downstream_head_dynamic_mask2 = mask_head(c.enc_embed_dim, c.dec_embed_dim)

    def _initialise_transformer(self) -> None:
        """Xavier-uniform linear layers and patch projection; norms 1 and 0. The heads keep PyTorch's own start."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.detach().flatten(1))

    @property
    def mask_heads(self) -> nn.ModuleList:
        """The two heads that the predictor's own training changes."""
        return nn.ModuleList([self.downstream_head_dynamic_mask1, self.downstream_head_dynamic_mask2])

    def grid(self, images: Float[Tensor, "b 3 h w"]) -> tuple[int, int]:
        """Rows and columns of the patch grid of these images."""
        return images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b n c"], Int[Tensor, "n 2"]]:
        """Features of each image by itself, and the (row, column) of every token.

        Args:
            images: RGB in [-1, 1]; both sides multiples of the patch size.
        """
        positions = grid_positions(*self.grid(images), device=images.device)
        rope = rope_table(positions, self.config.enc_embed_dim // self.config.enc_num_heads, self.config.rope_base)
        features = self.patch_embed(images)
        for block in self.enc_blocks:
            features = block(features, rope)
        return self.enc_norm(features), positions

    def decode(
        self,
        features1: Float[Tensor, "b n c"],
        positions1: Int[Tensor, "n 2"],
        features2: Float[Tensor, "b m c"],
        positions2: Int[Tensor, "m 2"],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of both images at every depth of the decoders: entry 0 is the encoder's output, entry n that of
        block n; the last is normalised. `select` picks the four that the heads read.

        At each step both branches read what the other had before the step.
        """
        head_dim = self.config.dec_embed_dim // self.config.dec_num_heads
        rope1 = rope_table(positions1, head_dim, self.config.rope_base)
        rope2 = rope_table(positions2, head_dim, self.config.rope_base)
        tokens1, tokens2 = [features1], [features2]
        x1, x2 = self.decoder_embed(features1), self.decoder_embed(features2)
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2):
            x1, x2 = block1(x1, x2, rope1, rope2), block2(x2, x1, rope2, rope1)
            tokens1.append(x1)
            tokens2.append(x2)
        tokens1[-1], tokens2[-1] = self.dec_norm(x1), self.dec_norm(x2)
        return tokens1, tokens2

    def select(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """The four token sets that a head reads, out of the list that `decode` returns."""
        return [tokens[hook] for hook in self.config.hooks]

    def forward(self, images1: Float[Tensor, "b 3 h1 w1"], images2: Float[Tensor, "b 3 h2 w2"]) -> PairPrediction:
        """Everything about a batch of pairs. `predict_pairs` is the fast way for a whole clip."""
        features1, positions1 = self.encode(images1)
        features2, positions2 = self.encode(images2)
        tokens1, tokens2 = map(self.select, self.decode(features1, positions1, features2, positions2))
        grid1, grid2 = self.grid(images1), self.grid(images2)
        pointmap1, confidence1 = points_and_confidence(self.downstream_head1(tokens1, grid1))
        pointmap2, confidence2 = points_and_confidence(self.downstream_head2(tokens2, grid2))
        return PairPrediction(
            pointmap1=pointmap1,
            confidence1=confidence1,
            dynamic_prob1=dynamic_probability(self.downstream_head_dynamic_mask1(tokens1, grid1)),
            pointmap2=pointmap2,
            confidence2=confidence2,
            dynamic_prob2=dynamic_probability(self.downstream_head_dynamic_mask2(tokens2, grid2)),
        )


def points_and_confidence(raw: Float[Tensor, "b 4 h w"]) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w"]]:
    """Raw point-head output to points and confidence.

    The direction of a point is that of the raw vector and its distance expm1 of the raw length, so near and far get
    equal relative resolution. Confidence is 1 + exp(raw).
    """
    raw = raw.float()
    vector = raw[:, :3].permute(0, 2, 3, 1)
    length = vector.norm(dim=-1, keepdim=True)
    points = vector / length.clamp_min(MIN_NORM) * torch.expm1(length)
    return points, 1.0 + raw[:, 3].exp()


def dynamic_probability(logits: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h w"]:
    """Raw mask-head output to the probability of being dynamic."""
    return logits.float()[:, 0].sigmoid()
