"""Gradients that the heads compute in their own way, against PyTorch's."""

import pytest
import torch

from das3r_ns.predictor.network.heads import LogitConv, upsample_twice


@pytest.mark.parametrize("size", [(1, 3), (4, 6), (9, 16)])
def test_the_gradient_of_upsampling_is_that_of_pytorch(size):
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    seen = torch.randn(2, 3, 2 * size[0], 2 * size[1], dtype=torch.float64)
    expected = torch.autograd.grad(
        torch.nn.functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True), maps, seen
    )
    torch.testing.assert_close(torch.autograd.grad(upsample_twice(maps), maps, seen), expected)


def test_a_logit_read_from_bfloat16_maps_has_the_gradients_of_float32():
    layer = LogitConv(16, 1, 1)
    maps = torch.randn(2, 16, 5, 7).bfloat16().requires_grad_()
    seen = torch.randn(2, 1, 5, 7).bfloat16().float()
    wanted = (maps, layer.weight, layer.bias)
    found = torch.autograd.grad(layer(maps), wanted, seen)
    expected = torch.autograd.grad(torch.nn.Conv2d.forward(layer, maps.float()), wanted, seen)
    for a, b in zip(found, expected):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.02)
    with torch.no_grad():  # where nothing learns, as before
        assert torch.equal(layer(maps), torch.nn.Conv2d.forward(layer, maps.float()))
