"""The numbers that define a pairwise network, and their translation from and to the `config.json` of the hub layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

DPT_HOOKS = (0.0, 0.5, 0.75, 1.0)
"""Which tokens the heads read, as fractions of the decoder depth; 0 is the encoder's output."""


MAX_IN_FILES = {
    "enc_embed_dim": 1 << 14, "dec_embed_dim": 1 << 14, "enc_num_heads": 1 << 10, "dec_num_heads": 1 << 10,
    "enc_depth": 200, "dec_depth": 200, "patch_size": 1 << 10,
}  # fmt: skip
"""Largest numbers that a file of weights may give: the network is built before its weights are compared with it."""


@dataclass(frozen=True)
class PairwiseNetworkConfig:
    """Widths and depths of the encoder and the two decoders. The defaults are the published network (ViT-L encoder)."""

    enc_embed_dim: int = 1024
    """Width of the encoder's tokens."""
    enc_depth: int = 24
    """Blocks of the encoder, which both images share."""
    enc_num_heads: int = 16
    """Attention heads of the encoder; the width of one head must be a multiple of 4 (two axes, pairs of elements)."""
    dec_embed_dim: int = 768
    """Width of the decoders' tokens."""
    dec_depth: int = 12
    """Blocks of each of the two decoders; a multiple of 4, because the heads read tokens at 1/2 and 3/4 of it."""
    dec_num_heads: int = 12
    """Attention heads of the decoders."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over its own width."""
    patch_size: int = 16
    """Side of the square that becomes one token, in pixels. The heads are built for 16."""
    image_size: tuple[int, int] = (512, 512)
    """(rows, columns) of the training images. Informative: any multiple of the patch size is accepted."""
    rope_base: float = 100.0
    """Base of the rotary position embedding's frequencies."""

    def __post_init__(self) -> None:
        for name, width, heads in (
            ("encoder", self.enc_embed_dim, self.enc_num_heads),
            ("decoder", self.dec_embed_dim, self.dec_num_heads),
        ):
            if width % heads or (width // heads) % 4:
                raise ValueError(
                    f"{name} width {width} over {heads} heads: the width of a head must be a multiple of 4"
                )
        if self.dec_depth % 4:
            raise ValueError(f"dec_depth is {self.dec_depth}; the heads need a multiple of 4")
        if self.patch_size != 16:
            raise ValueError(f"patch_size is {self.patch_size}; the heads upsample by 16 and need 16")

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Entries of the token list that the heads read: 0 is the encoder's output, n that of decoder block n."""
        return tuple(int(fraction * self.dec_depth) for fraction in DPT_HOOKS)  # type: ignore[return-value]

    @classmethod
    def from_hub(cls, stored: dict[str, Any]) -> PairwiseNetworkConfig:
        """Read the constructor arguments that DUSt3R, MonST3R and DAS3R store in `config.json`.

        Infinities may be floats (Python's JSON reader accepts the bare words) or the texts "inf" and "-inf".

        Raises:
            ValueError: the file describes another kind of network (linear heads, other output ranges).
        """
        defaults = cls()
        expected = {
            "head_type": "dpt",
            "output_mode": "pts3d",
            "depth_mode": ["exp", float("-inf"), float("inf")],
            "conf_mode": ["exp", 1.0, float("inf")],
            "mask_mode": ["sigmoid", 0.0, 1.0],
        }
        for name, value in expected.items():
            found = _normalised(stored[name]) if name in stored else value
            if found != value:
                raise ValueError(f"config.json has {name} = {stored[name]}; this network implements {value} only")
        pos_embed = str(stored.get("pos_embed", f"RoPE{defaults.rope_base:g}"))
        rope = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", pos_embed)
        if rope is None:
            raise ValueError(f"config.json has pos_embed = {pos_embed!r}; expected RoPE and a number, such as RoPE100")
        image_size = stored.get("img_size", defaults.image_size)
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, most in MAX_IN_FILES.items():
            if not 1 <= int(stored.get(name, 1)) <= most:
                raise ValueError(f"config.json has {name} = {stored[name]}; expected 1 to {most}")
        return cls(
            enc_embed_dim=int(stored.get("enc_embed_dim", defaults.enc_embed_dim)),
            enc_depth=int(stored.get("enc_depth", defaults.enc_depth)),
            enc_num_heads=int(stored.get("enc_num_heads", defaults.enc_num_heads)),
            dec_embed_dim=int(stored.get("dec_embed_dim", defaults.dec_embed_dim)),
            dec_depth=int(stored.get("dec_depth", defaults.dec_depth)),
            dec_num_heads=int(stored.get("dec_num_heads", defaults.dec_num_heads)),
            mlp_ratio=float(stored.get("mlp_ratio", defaults.mlp_ratio)),
            patch_size=int(stored.get("patch_size", defaults.patch_size)),
            image_size=(int(rows), int(columns)),
            rope_base=float(rope.group(1)),
        )

    def to_hub(self) -> dict[str, Any]:
        """The dictionary that `from_hub` reads, with every number spelled out."""
        return {
            "enc_embed_dim": self.enc_embed_dim,
            "enc_depth": self.enc_depth,
            "enc_num_heads": self.enc_num_heads,
            "dec_embed_dim": self.dec_embed_dim,
            "dec_depth": self.dec_depth,
            "dec_num_heads": self.dec_num_heads,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch_size,
            "img_size": list(self.image_size),
            "pos_embed": f"RoPE{self.rope_base:g}",
            "patch_embed_cls": "PatchEmbedDust3R",
            "landscape_only": False,
            "head_type": "dpt",
            "output_mode": "pts3d",
            "depth_mode": ["exp", float("-inf"), float("inf")],
            "conf_mode": ["exp", 1, float("inf")],
            "mask_mode": ["sigmoid", 0, 1],
        }


def _normalised(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        name, *limits = value
        return [name, *(float(limit) for limit in limits)]
    return value
