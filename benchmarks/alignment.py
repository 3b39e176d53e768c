"""How fast and how well the global alignment works, against 300 plain steps on all pixels.

    python benchmarks/alignment.py                              # 50 frames of 512x288, 450 directed pairs
    python benchmarks/alignment.py --height 36 --width 64 --frames 12 --device cpu    # does the script run?

The pairs are made from a synthetic clip whose truth is known, with errors of the kind a network makes. Printed for
each way: seconds, peak memory, objective on all pixels, ATE. Ours must have an objective no higher and an ATE no
worse than the plain steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from measure import measured, pick_device, report
from torch import Tensor

from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.network.alignment import Alignment, align
from das3r_ns.predictor.network.alignment.objective import observe
from das3r_ns.predictor.network.alignment.optimise import descend
from das3r_ns.predictor.network.alignment.start import initial_state, start_from_tree
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import AlignmentConfig, PairGraph
from das3r_ns.predictor.network.simulated_pairs import simulate_pairs
from das3r_ns.synthetic import SyntheticConfig, make_clip


@dataclass
class Options:
    """What to measure."""

    frames: int = 50
    """Frames of the clip."""
    height: int = 288
    """Rows of the pointmaps."""
    width: int = 512
    """Columns of the pointmaps."""
    seeds: tuple[int, ...] = (0, 1)
    """Each gives other errors of the pairs."""
    strides: tuple[int, ...] = (4,)
    """Pixel strides of our way: each is measured."""
    plain: bool = True
    """Measure the 300 plain steps as well (slow, and much memory)."""
    device: str = "auto"
    """Where to measure."""
    out: Path | None = None
    """JSON file to add the results to."""


def main(options: Options) -> None:
    """Measure and print."""
    device = pick_device(options.device)
    print(f"Rendering {options.frames} frames of {options.width}x{options.height} ...")
    clip = make_clip(SyntheticConfig(num_frames=options.frames, height=options.height, width=options.width))
    depth, moving, K = clip.depth.to(device), clip.dynamic_mask.to(device), clip.K.float().to(device)
    edges = PairGraph().edges(options.frames)
    for seed in options.seeds:
        pairs = simulate_pairs(depth, moving, clip.T_world_camera.to(device), K, edges, seed=seed)
        warm_up(pairs, options.frames)
        for stride in options.strides:
            config = AlignmentConfig(pixel_stride=stride, flow_weight=0.0)
            name = f"ours, {config.num_steps} steps at most on every {stride}th pixel, seed {seed}"
            measure(name, pairs, config, clip.T_world_camera, device, options)
            steps_alone(pairs, config, device, options)
        if options.plain:
            name = f"300 plain steps on all pixels, seed {seed}"
            measure(name, pairs, AlignmentConfig.published(), clip.T_world_camera, device, options)


def warm_up(pairs: PairPredictions, num_frames: int) -> None:
    """Kernels are loaded and memory is taken before anything is timed."""
    align(pairs, num_frames, AlignmentConfig(num_steps=2, flow_weight=0.0))


def measure(
    name: str, pairs: PairPredictions, config: AlignmentConfig, truth: Tensor, device: torch.device, options: Options
) -> Alignment:
    """The whole alignment, from pairs to cleaned maps."""
    with measured(device) as run:
        found = align(pairs, options.frames, config)
    errors = pose_errors(found.T_world_camera.cpu(), truth)
    report(
        name,
        {
            "alignment from pairs to maps, s": run.seconds,
            "peak memory with the pairs, GiB": run.peak_gib,
            "steps taken": len(found.trace),
            "objective on all pixels": float(found.objective.total),
            "ATE, m": errors.ate,
            "RPE translation, m": errors.rpe_translation,
            "RPE rotation, deg": errors.rpe_rotation_deg,
            "focal, px": float(found.K[0, 0, 0]),
        },
        device,
        options.out,
    )
    return found


def steps_alone(pairs: PairPredictions, config: AlignmentConfig, device: torch.device, options: Options) -> None:
    """Where the time goes: the start and the steps."""
    stride = config.stride_for(options.height, options.width)
    with measured(device) as start:
        seen = observe(pairs, options.frames, stride)
        state = initial_state(start_from_tree(seen), seen)
    with measured(device) as steps:
        taken = len(descend(state, seen, config).trace)
    rows = {"start, s": start.seconds, "steps, s": steps.seconds, "a step, ms": 1e3 * steps.seconds / taken}
    report("of which", rows, device, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
