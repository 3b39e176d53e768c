"""One rasterizer for every machine: gsplat on a GPU, our own differentiable one on a CPU, behind the same call.

    render, alpha, info = rasterize(means, quats, scales, opacities, colors, viewmats, Ks, width, height, ...)

In: Gaussians in world axes, cameras as `T_camera_world` (OpenCV axes) and pixels with the first centre at (0.5, 0.5).
Out: images, alpha, and the `info` that gsplat's densification strategies read. The CPU path goes
`projection` -> `harmonics` -> `tiles` -> `compositing`; each stage has a hand-derived derivative.
"""

from das3r_ns.machine.checks import draws_on_cpu
from das3r_ns.model.rasterizer.dispatch import Rasterizer, rasterize, warm_up
from das3r_ns.model.rasterizer.inputs import RasterizeMode, RenderMode

__all__ = ["RasterizeMode", "Rasterizer", "RenderMode", "draws_on_cpu", "rasterize", "warm_up"]
