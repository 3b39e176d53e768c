"""What both backends draw, as one object: checked once, in `rasterize`. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]


class ProjectionSettings(NamedTuple):
    """What the projection needs besides tensors. Lengths in pixels except the planes, which are z-depths."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    eps2d: float
    """Added to the diagonal of each image covariance, so that no splat is thinner than about a pixel."""
    radius_clip: float
    """Splats of this radius or less are culled."""


class RasterizerInputs(NamedTuple):
    """Arguments of `rasterize`, which says what they mean."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "n k 3"] | Float[Tensor, "n d"]
    viewmats: Float[Tensor, "c 4 4"]
    Ks: Float[Tensor, "c 3 3"]
    settings: ProjectionSettings
    sh_degree: int | None
    backgrounds: Float[Tensor, "c b"] | None
    extra: Float[Tensor, "n e"] | None
    render_mode: RenderMode
    rasterize_mode: RasterizeMode
    packed: bool
    absgrad: bool

    @property
    def with_colors(self) -> bool:
        """Whether colours are drawn."""
        return self.render_mode.startswith("RGB")

    @property
    def with_depth(self) -> bool:
        """Whether depth is drawn, behind colours and extra channels."""
        return self.render_mode.endswith("D")

    @property
    def expects_depth(self) -> bool:
        """Whether depth is the expected one, divided by alpha."""
        return self.render_mode.endswith("ED")

    def cpu(self) -> RasterizerInputs:
        """The same with all tensors on the CPU."""
        return self._make(value.cpu() if isinstance(value, Tensor) else value for value in self)

    def check(self) -> None:
        """
        Raises:
            ValueError: sizes, shapes, types or options that do not fit; says which and what would.
        """
        if self.settings.width < 1 or self.settings.height < 1:
            size = f"{self.settings.width} x {self.settings.height}"
            raise ValueError(f"The image is {size} pixels; both sides must be at least 1.")
        if len(self.viewmats) < 1:
            raise ValueError("There is no camera: viewmats is empty.")
        self._check_tensors()
        self._check_degree()
        if not self.means.is_cuda:
            self._check_cpu()

    def _check_tensors(self) -> None:
        means, count, cameras = self.means, len(self.means), len(self.viewmats)
        for name, (tensor, shape) in self._expected_shapes().items():
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, and {count} Gaussians in {cameras} cameras "
                    f"(sh_degree {self.sh_degree}) need {shape}."
                )
            if tensor.device != means.device or tensor.dtype != means.dtype:
                raise ValueError(
                    f"{name} is {tensor.dtype} on {tensor.device}, and means are {means.dtype} on {means.device}. "
                    f"Bring them together with {name}.to(means)."
                )

    def _expected_shapes(self) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        count, cameras, colors = len(self.means), len(self.viewmats), self.colors
        expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {
            "means": (self.means, (count, 3)),
            "quats": (self.quats, (count, 4)),
            "scales": (self.scales, (count, 3)),
            "opacities": (self.opacities, (count,)),
            "viewmats": (self.viewmats, (cameras, 4, 4)),
            "Ks": (self.Ks, (cameras, 3, 3)),
        }
        if self.sh_degree is None:
            expected["colors"] = (colors, (count, colors.shape[-1]))
        else:
            coefficients = colors.shape[1] if colors.ndim == 3 else (self.sh_degree + 1) ** 2
            expected["colors"] = (colors, (count, coefficients, 3))
        if self.extra is not None:
            expected["extra"] = (self.extra, (count, self.extra.shape[-1]))
        if self.backgrounds is not None:
            expected["backgrounds"] = (self.backgrounds, (cameras, colors.shape[-1]))
        return expected

    def _check_degree(self) -> None:
        if self.sh_degree is None:
            return
        needed, held = (self.sh_degree + 1) ** 2, self.colors.shape[1]
        if not 1 <= needed <= held:
            raise ValueError(
                f"sh_degree {self.sh_degree} needs {needed} coefficients a channel, and colors hold {held}. "
                "Lower sh_degree or pad colors with zeros."
            )

    def _check_cpu(self) -> None:
        if self.means.device.type != "cpu":
            raise ValueError(f"Gaussians are on {self.means.device}; rasterize works on CUDA devices and the CPU.")
        if self.means.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"Gaussians are {self.means.dtype}; the CPU rasterizer takes float32 or float64.")
        if self.packed:
            raise ValueError("packed=True is gsplat's layout on a GPU; pass packed=False on the CPU.")
