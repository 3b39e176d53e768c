"""Frozen weights in bfloat16, rotary positions in one kernel, upsampling in its own type."""

import os
import subprocess
import sys

import pytest
import torch
from tiny_network import TINY, small_heads
from torch import nn

from das3r_ns.predictor.network.casting import bfloat16_copy
from das3r_ns.predictor.network.heads import Float32Conv, upsample_twice
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.rope_kernel import kernel_works, lies_packed
from das3r_ns.predictor.network.transformer import LayerNorm, grid_positions, rope_table, rotate

narrow = pytest.fixture(scope="module", autouse=True)(small_heads)


@pytest.fixture
def network() -> PairwiseNetwork:
    torch.manual_seed(2)
    network = PairwiseNetwork(TINY).eval()
    for name, weight in network.named_parameters():
        if "norm" in name:  # weights of norms as training leaves them, not 1 and 0
            nn.init.normal_(weight, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return network


def test_the_cast_copy_computes_what_the_network_computes(network):
    images = torch.rand(2, 2, 3, 32, 48) * 2 - 1
    with torch.inference_mode():
        exact = network(*images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain, cast = network(*images), bfloat16_copy(network)(*images)
    for name in ("pointmap1", "pointmap2", "confidence1", "dynamic_prob1", "dynamic_prob2"):
        error, plain_error = ((getattr(found, name) - getattr(exact, name)).norm() for found in (cast, plain))
        assert 0 < error < 1.5 * plain_error  # as near to float32 as autocast alone


def test_the_cast_copy_leaves_the_network_as_it_is_and_shares_what_learns(network):
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    twin = bfloat16_copy(network, network.mask_heads)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name])
    assert twin.downstream_head_dynamic_mask1 is network.downstream_head_dynamic_mask1
    assert twin.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert not twin.enc_blocks[0].attn.qkv.weight.requires_grad
    for module in twin.downstream_head1.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.dtype == (torch.float32 if isinstance(module, Float32Conv) else torch.bfloat16)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_types_stay_what_they_are_under_autocast(device):
    maps, tokens = (torch.rand(shape, device=device).bfloat16() for shape in ((1, 4, 3, 5), (1, 6, 8)))
    norm = LayerNorm(8).to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert upsample_twice(maps).dtype == norm(tokens).dtype == norm.to(torch.bfloat16)(tokens).dtype == maps.dtype
    exact = upsample_twice(maps.float())
    torch.testing.assert_close(upsample_twice(maps).float(), exact, atol=0, rtol=2**-8)  # one rounding, at the end


def test_the_kernel_for_rotary_positions_rotates_as_written_out():
    """In Triton's interpreter, which needs no GPU, with strides as in the fused projection of query, key and value."""
    pytest.importorskip("triton")
    code = """
import torch
from das3r_ns.predictor.network.rope_kernel import rotate_in_place
from das3r_ns.predictor.network.transformer import grid_positions, rope_table, rotate

torch.manual_seed(0)
table = rope_table(grid_positions(3, 5, torch.device("cpu")), 24, 100.0)
for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2**-7)):  # the interpreter cuts off
    every = torch.randn(2, 15, 9, 24).to(dtype)
    expected, value = rotate(every[:, :, :6], table), every[:, :, 6:].clone()
    rotate_in_place(every[:, :, :6], *table)
    torch.testing.assert_close(every[:, :, :6], expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(every[:, :, 6:], value)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("of_tokens", ["*fp32", "*bf16"])
def test_the_kernel_for_rotary_positions_compiles_for_a_gpu_that_is_not_there(of_tokens):
    """Its source must be plain, whatever checks of types are put around the functions of its module."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from das3r_ns.predictor.network import rope_kernel

    signature = {"tokens": of_tokens, "cos": "*fp32", "sin": "*fp32", "n": "i32", "stride": "i32"}
    numbers = {"pairs": 512, "quarter": 16, "block": 512}  # 16 heads of 64 elements
    source = ASTSource(rope_kernel._rotate_rows, {**signature, **dict.fromkeys(numbers, "constexpr")}, numbers)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2})
    assert len(compiled.asm["cubin"]) > 0


def test_only_tokens_that_lie_packed_go_to_the_kernel():
    every = torch.zeros(2, 15, 9, 24)
    assert lies_packed(every)
    assert lies_packed(every[:, :, :6])
    assert not lies_packed(every[:, ::2])
    assert not lies_packed(every.transpose(1, 2))


@pytest.mark.gpu
def test_the_kernel_for_rotary_positions_runs_on_a_gpu_and_only_where_nothing_learns():
    table = rope_table(grid_positions(18, 32, torch.device("cuda")), 64, 100.0)
    every = torch.randn(2, 576, 48, 64, device="cuda")
    expected = rotate(every[:, :, :32], table)
    assert expected.data_ptr() != every.data_ptr()
    assert kernel_works(every.device)
    with torch.no_grad():
        found = rotate(every[:, :, :32], table)
    assert found.data_ptr() == every.data_ptr()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
