"""Speed of the CPU rasterizer: forward + backward passes a second, the share of each stage, and memory.

    python benchmarks/rasterizer.py            # the standard cases
    python benchmarks/rasterizer.py --help     # one's own

A pass is all that a training step asks of the rasterizer: spherical harmonics, projection, compositing of colour, one
extra channel and depth, and the gradient of all parameters including the camera. Two kinds of scene: "dense", a wall of
small splats one or two pixels wide, as a start from depth maps gives; "overlapping", splats three times as large in
eight layers, as later in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import torch
import tyro
from torch import Tensor

from das3r_ns.model.rasterizer import rasterize, warm_up
from das3r_ns.model.rasterizer.compositing import composite, deal_all_to_tiles
from das3r_ns.model.rasterizer.harmonics import harmonics_to_color
from das3r_ns.model.rasterizer.inputs import ProjectionSettings
from das3r_ns.model.rasterizer.projection import project

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One measurement."""

    width: int
    height: int
    gaussians: int
    kind: Literal["dense", "overlapping"]
    sh_degree: int = 3


_STANDARD = (
    *(Case(320, 180, 50_000, kind, degree) for kind in ("dense", "overlapping") for degree in (0, 3)),
    *(Case(640, 360, 50_000, kind) for kind in ("dense", "overlapping")),
    *(Case(640, 360, 200_000, kind) for kind in ("dense", "overlapping")),
    *(Case(854, 480, 200_000, kind) for kind in ("dense", "overlapping")),
)


@dataclass(frozen=True)
class Scene:
    """Gaussians and one camera, all of them parameters that want gradients."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    extra: Tensor


def make_scene(case: Case, seed: int = 0) -> Scene:
    """Gaussians on surfaces in front of one camera."""
    g = torch.Generator().manual_seed(seed)
    count, focal = case.gaussians, 0.9 * case.width
    layers = 1.5 if case.kind == "dense" else 8.0
    spacing = (layers * case.width * case.height / count) ** 0.5  # pixels between neighbours on one surface
    size = 0.7 * spacing if case.kind == "dense" else 1.2 * spacing
    uv = torch.rand(count, 2, generator=g) * torch.tensor([case.width, case.height])
    depth = 2.0 + 0.5 * torch.sin(uv[:, 0] / 40.0) + (torch.rand(count, generator=g) * layers).floor() * 0.4
    xy = (uv - torch.tensor([case.width, case.height]) / 2) / focal * depth[:, None]
    stretch = torch.exp(0.3 * torch.randn(count, 3, generator=g))
    return Scene(
        means=torch.cat([xy, depth[:, None]], dim=-1).requires_grad_(),
        quats=torch.randn(count, 4, generator=g).requires_grad_(),
        scales=((size * depth / focal)[:, None] * stretch).requires_grad_(),
        opacities=(torch.rand(count, generator=g) * 0.8 + 0.1).requires_grad_(),
        colors=(torch.randn(count, 16, 3, generator=g) * 0.3).requires_grad_(),
        viewmats=torch.eye(4)[None].requires_grad_(),
        Ks=torch.tensor(
            [[[focal, 0.0, case.width / 2], [0.0, focal, case.height / 2], [0.0, 0.0, 1.0]]], requires_grad=True
        ),
        extra=torch.rand(count, 1, generator=g).requires_grad_(),
    )


def one_pass(scene: Scene, case: Case, weights: Tensor) -> None:
    """Forward and backward."""
    for field in fields(scene):
        getattr(scene, field.name).grad = None
    render, alpha, _ = rasterize(
        scene.means,
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.colors,
        scene.viewmats,
        scene.Ks,
        case.width,
        case.height,
        sh_degree=case.sh_degree,
        render_mode="RGB+ED",
        extra=scene.extra,
    )
    ((render * weights).sum() + alpha.mean()).backward()


def stage_seconds(scene: Scene, case: Case) -> dict[str, float]:
    """Seconds of each stage on its own, once."""
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        seconds[stage] = time.perf_counter() - start
        return result

    geometry = [scene.means, scene.quats, scene.scales, scene.viewmats, scene.Ks]
    settings = ProjectionSettings(case.width, case.height, 0.01, 1e10, 0.3, 0.0)
    splats = timed(
        "projection",
        lambda: project(scene.means, scene.quats, scene.scales, scene.viewmats, scene.Ks, settings),
    )
    eyes = torch.inverse(scene.viewmats)[:, :3, 3].detach().requires_grad_()
    rgb = timed("harmonics", lambda: harmonics_to_color(scene.colors, scene.means, eyes, splats.radii, case.sh_degree))
    blended = torch.cat([rgb, scene.extra[None], splats.depths[..., None]], dim=-1).detach().requires_grad_()
    opacities = scene.opacities[None].detach().requires_grad_()
    means2d, conics = splats.means2d.detach().requires_grad_(), splats.conics.detach().requires_grad_()
    cut_off = splats._replace(means2d=means2d, conics=conics)
    lists = timed("sorting into tiles", lambda: deal_all_to_tiles(cut_off, opacities, blended, case.width, case.height))
    black = blended.new_zeros(1, blended.shape[-1])
    image, _ = timed("compositing", lambda: composite(cut_off, opacities, blended, black, lists, False))
    ones = torch.ones_like(image)
    grads = timed(
        "compositing backward", lambda: torch.autograd.grad(image, [means2d, conics, opacities, blended], ones)
    )
    v_rgb = grads[3][..., :3].contiguous()
    timed("harmonics backward", lambda: torch.autograd.grad(rgb, [scene.colors, scene.means, eyes], v_rgb))
    outputs = [splats.means2d, splats.conics]
    timed("projection backward", lambda: torch.autograd.grad(outputs, geometry, [grads[0], grads[1]]))
    return seconds


def _reset_peak_mib() -> float:
    """Forget the process' peak of resident memory and say what is resident now (Linux; elsewhere nan)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return float("nan")
    return _peak_mib()


def _peak_mib() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(case: Case, seconds: float) -> None:
    """Print one line for the speed and one for the stages."""
    scene = make_scene(case)
    weights = torch.rand(case.height, case.width, 5)
    before = _reset_peak_mib()
    one_pass(scene, case, weights)
    memory = _peak_mib() - before
    times = []
    while sum(times) < seconds or len(times) < 5:
        start = time.perf_counter()
        one_pass(scene, case, weights)
        times.append(time.perf_counter() - start)
    median = sorted(times)[len(times) // 2]
    runs = [stage_seconds(scene, case) for _ in range(5)]
    stages = {stage: sorted(run[stage] for run in runs)[2] for stage in runs[0]}
    stages["torch and the rest"] = max(median - sum(stages.values()), 0.0)
    print(
        f"{case.width}x{case.height} {case.gaussians:>7,} {case.kind:<11} SH {case.sh_degree}: "
        f"{1 / median:5.1f} passes/s ({1e3 * median:.1f} ms, best {1e3 * min(times):.1f} ms), {memory:.0f} MiB"
    )
    print("    " + ", ".join(f"{stage} {s / sum(stages.values()):.0%}" for stage, s in stages.items()))


def main(
    size: tuple[int, int] | None = None,
    gaussians: int = 50_000,
    kind: Literal["dense", "overlapping"] = "dense",
    sh_degree: int = 3,
    seconds: float = 2.0,
    threads: int = 2,
) -> None:
    """Measure the standard cases, or one.

    Args:
        size: width and height of one case; left out, the standard cases are measured and the next three ignored.
        gaussians: number of Gaussians.
        kind: dense (small splats, mostly one surface) or overlapping (larger ones in eight layers).
        sh_degree: degree of the spherical harmonics, 0 to 3.
        seconds: how long each case is repeated; the median counts.
        threads: threads of torch and of the rasterizer.
    """
    torch.set_num_threads(threads)
    start = time.perf_counter()
    warm_up()
    print(f"{threads} threads; warm-up {time.perf_counter() - start:.2f} s")
    for case in _STANDARD if size is None else (Case(*size, gaussians, kind, sh_degree),):
        measure(case, seconds)


if __name__ == "__main__":
    tyro.cli(main)
