"""Settings of the model. Every field's sentence is its help text on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nerfstudio.models.splatfacto import SplatfactoModelConfig

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.model.hidden import HiddenConfig
from das3r_ns.model.poses import PoseRefinementConfig
from das3r_ns.model.remarking import RemarkingConfig
from das3r_ns.model.start import StartConfig
from das3r_ns.model.staticness import StaticnessConfig

if TYPE_CHECKING:
    from das3r_ns.model.das3r import Das3rModel


def _model() -> type[Das3rModel]:
    from das3r_ns.model.das3r import Das3rModel

    return Das3rModel


@dataclass
class Das3rModelConfig(SavedConfig, SplatfactoModelConfig):
    """Gaussian splatting of the static scene: splatfacto with staticness, refined cameras and losses of its own.

    Of splatfacto's fields, those on density (`warmup_length` to `cull_scale_thresh`), resolution, background,
    spherical harmonics and SSIM keep their meaning.
    """

    _target: type = field(default_factory=_model)
    start: StartConfig = field(default_factory=StartConfig)
    """How seed points become Gaussians."""
    staticness: StaticnessConfig = field(default_factory=StaticnessConfig)
    """How much each training pixel counts."""
    remarking: RemarkingConfig = field(default_factory=RemarkingConfig)
    """Finding moving pixels that the predictor missed, by what the render fails to explain."""
    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    """What shows where moving objects hide the ground in every frame."""
    camera_optimizer: PoseRefinementConfig = field(default_factory=PoseRefinementConfig)  # type: ignore[assignment]
    """Camera refinement."""
    loss: Literal["static", "published"] = "static"
    """`static` averages errors over the pixels that count; `published` blackens the others and averages over all."""
    densify: bool = True
    """Grow and prune Gaussians. Off keeps those of the start, as published."""
    max_gaussians: int = 500_000
    """Never grow beyond this many. Time and memory follow it."""
    depth_weight: float = 0.0
    """Weight of the difference between rendered and predicted inverse depth, where the prediction is sure. 0 turns it
    off."""
    depth_until: int = 2000
    """Step after which depth is no longer supervised: by then the images know better."""
    exposure: bool = False
    """Learn gain and offset of each frame's colours, the gain varying smoothly over the image, for clips whose
    brightness or white balance drifts and lenses that darken towards the corners."""
    motion_blur: bool = False
    """Learn how long the shutter was open, and blur renders of the clip's own frames by the camera's motion meanwhile
    before they are compared with the images: the Gaussians become sharper than the frames."""
    rasterizer: Literal["auto", "cpu"] = "auto"
    """`auto` takes gsplat on a GPU, whose kernels are built once; `cpu` draws on the CPU even there, for machines where
    they cannot be built (slower). Kept in `config.yml`, so that later commands draw likewise."""
    cuda_graphs: bool = True
    """Record the parts of a step around the rasterizer as CUDA graphs: steps take about half the time. No effect
    without a GPU."""
    cull_staticness: float = 0.5
    """Gaussians that are less static than this are neither rendered after training nor exported. 0 keeps all."""
    keep_dynamic: bool = False
    """Keep every Gaussian in renders and exports, whatever `cull_staticness` says."""
