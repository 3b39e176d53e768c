"""A pairwise network that is tiny throughout, for tests of what surrounds it."""

from collections.abc import Iterator

import pytest

from das3r_ns.predictor.network import heads
from das3r_ns.predictor.network.config import PairwiseNetworkConfig

TINY = PairwiseNetworkConfig(
    enc_embed_dim=16, enc_depth=2, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, dec_num_heads=2, image_size=(32, 48)
)


def small_heads() -> Iterator[None]:
    """Narrow heads for as long as the fixture lives: the published widths are fixed, and 80 million weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "FEATURES", 16)
        patch.setattr(heads, "LEVEL_WIDTHS", (8, 8, 12, 16))
        patch.setattr(heads, "POINT_FEATURES", 8)
        yield
