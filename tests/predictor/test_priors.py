import pytest
import torch

from das3r_ns.predictor.base import DepthPrior, UserPriors


def test_a_crop_of_depth_covers_that_part_of_the_frame():
    depth = torch.arange(1, 41, dtype=torch.float32).reshape(1, 4, 10)
    prior = DepthPrior(depth, torch.ones_like(depth))
    part = prior.crop((0.25, 0.75), (0.2, 0.9))
    assert torch.equal(part.depth, depth[:, 1:3, 2:9])
    assert part.confidence.shape == part.depth.shape


def test_depth_needs_cameras():
    depth = torch.ones(2, 4, 4)
    with pytest.raises(ValueError, match="cameras"):
        UserPriors(depth=DepthPrior(depth, depth))
