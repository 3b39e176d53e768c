"""How fast the pairwise network goes through a clip, at full size with random weights.

    python benchmarks/network.py                  # 50 frames of 512x288, 450 directed pairs
    python benchmarks/network.py --long           # 500 frames in windows, alignment included
    python benchmarks/network.py --tiny --device cpu   # does the script run?

Printed: seconds for the clip, ms a pair, TFLOP/s, peak memory beside its estimate, and how far bfloat16 is from
float32. Weights are random because speed does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from measure import GIB, measured, pick_device, report
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from das3r_ns import geometry
from das3r_ns.predictor.network.alignment import KnownGeometry
from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.inference import FrameMemory, predict_pairs, product_type
from das3r_ns.predictor.network.memory import memory_need
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import AlignmentConfig, InferenceConfig, PairGraph, WindowConfig
from das3r_ns.predictor.network.simulated_pairs import simulate_pairs
from das3r_ns.predictor.network.windows import align_clip, cut, shared_frames

TINY = PairwiseNetworkConfig(
    enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32, dec_depth=4, dec_num_heads=2
)


@dataclass
class Options:
    """What to measure."""

    frames: int = 50
    """Frames of the clip."""
    height: int = 288
    """Rows of the network's input."""
    width: int = 512
    """Columns of the network's input."""
    batches: tuple[int, ...] = (8, 16, 32)
    """Pairs decoded at once: each is measured."""
    compile: bool = False
    """Measure torch.compile as well, its compilation apart."""
    plain: bool = True
    """Measure the plain network as the published code runs it: pair by pair, TF32 and float32."""
    long: bool = False
    """Measure 500 frames in windows instead, with the alignment."""
    tiny: bool = False
    """A tiny network and tiny images, to see that the script runs."""
    device: str = "auto"
    """Where to measure."""
    out: Path | None = None
    """JSON file to add the results to."""


def main(options: Options) -> None:
    """Measure and print."""
    device = pick_device(options.device)
    if options.tiny:
        options = replace(options, frames=6, height=32, width=48, batches=(4,))
    torch.manual_seed(0)
    with torch.device(device):
        network = PairwiseNetwork(TINY if options.tiny else PairwiseNetworkConfig()).eval()
    if options.long:
        measure_long(options, network, device)
        return
    images = torch.rand(options.frames, 3, options.height, options.width) * 2 - 1
    edges = PairGraph().edges(options.frames)
    flops = count_flops(network, images[:2].to(device), options.frames, len(edges))
    if options.plain:
        measure_plain(options, network, images.to(device), device)
    weights = sum(weight.numel() for weight in network.parameters())
    precisions = ("bfloat16", "float32") if product_type(device, "auto") == torch.bfloat16 else ("float32",)
    for precision in precisions:
        for batch in options.batches:
            for compiled in (False, True) if options.compile else (False,):
                config = InferenceConfig(precision=precision, max_batch=batch, compile=compiled, memory_gib=1e3)
                predict_pairs(network, images, edges[:batch], config)  # kernels are chosen, memory is taken
                with measured(device) as run:
                    predict_pairs(network, images, edges, config)
                dtype = product_type(device, precision)
                size, whole = (options.height, options.width), WindowConfig(frames=max(80, options.frames))
                need = memory_need(
                    num_frames=options.frames,
                    size=size,
                    graph=PairGraph(),
                    windows=whole,
                    inference=config,
                    network=network.config,
                    num_weights=weights,
                    dtype=dtype,
                    device=device,
                )
                report(
                    f"{options.frames} frames, {len(edges)} pairs, {precision}, batch {batch}"
                    + (", compiled" if compiled else ""),
                    {
                        "clip, s": run.seconds,
                        "pair, ms": 1e3 * run.seconds / len(edges),
                        "TFLOP in all": flops / 1e12,
                        "TFLOP/s": flops / run.seconds / 1e12,
                        "peak memory, GiB": run.peak_gib,
                        "estimated beforehand, GiB": need.device / GIB,
                    },
                    device,
                    options.out,
                )
    deviation = compare_precisions(network, images[:4], device)
    report("bfloat16 against float32, largest over 12 pairs", deviation, device, options.out)


def count_flops(network: PairwiseNetwork, images: Tensor, num_frames: int, num_edges: int) -> float:
    """Floating-point operations of a clip as `predict_pairs` goes about it, counted on one frame and one pair."""
    one = InferenceConfig(precision="float32", max_batch=1)

    def count(edges: list[tuple[int, int]], frames: int) -> int:
        with FlopCounterMode(display=False) as counter:
            predict_pairs(network, images[:frames], edges, one)
        return counter.get_total_flops()

    one_pair, two_pairs = count([(0, 1)], 2), count([(0, 1), (1, 0)], 2)
    a_pair = two_pairs - one_pair
    return num_edges * a_pair + num_frames * (one_pair - a_pair) / 2


def measure_plain(options: Options, network: PairwiseNetwork, images: Tensor, device: torch.device) -> None:
    """Pair by pair, both images encoded for each pair, nothing kept."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    rows = {}
    for name, tf32 in (("TF32", True), ("float32", False)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with torch.inference_mode():
            for _ in range(2):
                network(images[:1], images[1:2])
            repeats = 2 if options.tiny else 20
            with measured(device) as run:
                for k in range(repeats):
                    network(images[k % 4 : k % 4 + 1], images[4:5])
        rows[f"{name}: pair, ms"] = 1e3 * run.seconds / repeats
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    report("The plain network, batch 1", rows, device, options.out)


def compare_precisions(network: PairwiseNetwork, images: Tensor, device: torch.device) -> dict[str, float]:
    """Largest and mean deviation of every output, points as a share of their distance."""
    edges = PairGraph("complete").edges(len(images))
    exact, rough = (predict_pairs(network, images, edges, InferenceConfig(p)) for p in ("float32", "bfloat16"))
    rows = {}
    for name in ("pointmap1", "pointmap2", "confidence1", "confidence2", "dynamic_prob1"):
        a, b = getattr(exact, name), getattr(rough, name)
        error = (a - b).abs()
        if name.startswith("pointmap"):
            error = (a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-6)
        elif name.startswith("confidence"):
            error = error / a
        rows[f"{name}, largest"], rows[f"{name}, mean"] = float(error.max()), float(error.mean())
    return rows


def measure_long(options: Options, network: PairwiseNetwork, device: torch.device) -> None:
    """A long clip in windows: the network runs for the time and memory; the alignment gets pairs of a known world,
    because random weights see none."""
    n = 40 if options.tiny else max(500, options.frames)
    size = (options.height, options.width)
    windows = WindowConfig(frames=12, overlap=4) if options.tiny else WindowConfig()
    T, K, depth = wavy_wall(n, *size, device)
    images = torch.rand(n, 3, *size) * 2 - 1
    inference = InferenceConfig(max_batch=max(options.batches))
    memory = FrameMemory(shared_frames(cut(n, windows)))
    spent = {"network, s": 0.0, "making the pairs up, s": 0.0}

    def predict(frames, edges) -> PairPredictions:
        chosen = list(frames)
        with measured(device, within=True) as run:
            found = predict_pairs(network, images[chosen], edges, inference, chosen, memory)
        spent["network, s"] += run.seconds
        descriptors = found.descriptors
        del found
        with measured(device, within=True) as run:
            moving = torch.zeros_like(depth[chosen], dtype=torch.bool)
            made_up = simulate_pairs(depth[chosen], moving, T[chosen], K, edges, seed=chosen[0])
        spent["making the pairs up, s"] += run.seconds
        return replace(made_up, descriptors=descriptors)

    dtype = product_type(device, inference.precision)
    weights = sum(w.numel() for w in network.parameters())
    need = memory_need(
        num_frames=n,
        size=size,
        graph=PairGraph(),
        windows=windows,
        inference=inference,
        network=network.config,
        num_weights=weights,
        dtype=dtype,
        device=device,
    )
    with measured(device) as run:
        align_clip(predict, n, PairGraph(), AlignmentConfig(flow_weight=0.0), windows, KnownGeometry())
    rows: dict[str, float | int | str] = {**spent}
    rows["alignment and joining, s"] = run.seconds - sum(spent.values())
    rows |= {"peak memory, GiB": run.peak_gib, "estimated beforehand, GiB": need.device / GIB}
    report(f"{n} frames, {need.pairs} pairs in {need.windows} windows", rows, device, options.out)


def wavy_wall(n: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Cameras that wander along a wavy wall, intrinsics, and true depth."""
    K = geometry.intrinsics(0.8 * width, height, width).to(device)
    T = torch.eye(4, device=device).repeat(n, 1, 1)
    k = torch.arange(n, device=device)
    angle = 0.3 * torch.sin(0.02 * k)
    T[:, 0, 0] = T[:, 2, 2] = angle.cos()
    T[:, 0, 2], T[:, 2, 0] = -angle.sin(), angle.sin()
    T[:, 0, 3], T[:, 1, 3], T[:, 2, 3] = 0.05 * k, 0.05 * torch.sin(0.3 * k), 0.3 * torch.sin(0.05 * k)
    rays_camera = geometry.unproject(torch.ones(height, width, device=device), K)
    depth = torch.full((n, height, width), 4.0, device=device)
    for i in range(n):
        rays = rays_camera @ T[i, :3, :3].T
        for _ in range(30):
            point = T[i, :3, 3] + depth[i, ..., None] * rays
            wall = 4 + 0.5 * torch.sin(1.5 * point[..., 0]) + 0.4 * torch.cos(2 * point[..., 1])
            depth[i] += 0.7 * (wall - point[..., 2]) / rays[..., 2]
    return T, K, depth


if __name__ == "__main__":
    main(tyro.cli(Options))
