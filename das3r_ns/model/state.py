"""What the model consists of: Gaussians, maps, corrections; how they start, how a checkpoint restores them.

In: the dataparser's metadata (`points3D_*`, `dynamic_prob`, `depth`, `confidence`, `frame_weight`; all optional) or
plain seed points. Out: parameters under the names that optimizers and exporters know them by.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.base_model import Model
from nerfstudio.models.splatfacto import SplatfactoModel
from nerfstudio.utils.colors import get_color
from torch import Tensor, nn

from das3r_ns.model.config import Das3rModelConfig
from das3r_ns.model.density import FixedDensity, StaticDensity
from das3r_ns.model.depth import DepthSupervision
from das3r_ns.model.exposure import Exposure
from das3r_ns.model.graphed import Graphed
from das3r_ns.model.hidden import HiddenGround
from das3r_ns.model.poses import PoseRefinement, refined_view, view_matrix
from das3r_ns.model.rendering import Splats, View
from das3r_ns.model.shutter import Shutter
from das3r_ns.model.start import initialize_gaussians, random_seeds, read_seeds
from das3r_ns.model.staticness import StaticnessMaps

CULLED_LOGIT = -20.0
"""Opacity logit of a Gaussian that is not shown; the exporter leaves out whatever is below -5.5."""
EXPORTED_HARMONICS = 15
"""Coefficients a channel beyond the first that every splat viewer expects (degree 3)."""
VISER_BACKGROUND = (0.1490, 0.1647, 0.2157)
"""What shows behind the scene after training with a random background: the viewer's own colour."""


class Das3rState(SplatfactoModel):
    """Parameters of the model and everything about them that needs no image."""

    config: Das3rModelConfig
    camera_optimizer: PoseRefinement

    def populate_modules(self) -> None:
        """Build Gaussians, maps and corrections. Replaces splatfacto's, which needs CUDA and the network.

        Raises:
            ValueError: an option of splatfacto that this model has no use for, or options that exclude each other.
        """
        config = self.config
        for option in ("use_bilateral_grid", "color_corrected_metrics"):
            if getattr(config, option):
                raise ValueError(f"das3r has no {option}; use --pipeline.model.exposure True for drifting colours")
        metadata: dict[str, Any] = self.kwargs.get("metadata", {})
        probability = metadata.get("dynamic_prob")
        self.maps = None if probability is None else StaticnessMaps(probability, config.staticness)
        # What the predictor said stays as evidence; it is read again with the data, not from the checkpoint.
        self.register_buffer("dynamic_prob", None if probability is None else probability.float(), False)
        self.dynamic_prob: Tensor
        self._build_gaussians(metadata)
        count = self.num_train_data
        self.camera_optimizer = config.camera_optimizer.setup(num_cameras=count)
        self.refined_view = Graphed(refined_view, config.cuda_graphs)
        self.exposure = Exposure(count) if config.exposure else None
        blurs = config.motion_blur and "depth" in metadata
        self.shutter = Shutter(metadata["depth"].float()) if blurs else None
        self.hidden_ground: HiddenGround | None = None
        if config.hidden.weight > 0 and probability is not None:
            self.hidden_ground = HiddenGround(probability.float(), config.hidden)
        supervised = config.depth_weight > 0 and "depth" in metadata
        self.depth_supervision = DepthSupervision(metadata["depth"], metadata["confidence"]) if supervised else None
        self.register_buffer("frame_weight", metadata.get("frame_weight", torch.ones(count)).float(), False)
        self.frame_weight: Tensor
        self.register_buffer("intrinsics", torch.zeros(count, 3, 3), False)
        self.intrinsics: Tensor
        self.image_sizes: list[tuple[int, int]] = []
        self._views: dict[int, View] = {}  # of cameras that never move
        self.step = 0
        self.cull_staticness = config.cull_staticness  # as the run was loaded with it; the viewer's slider moves it
        self.crop_box = None
        random = config.background_color == "random"
        self.background_color = torch.tensor(VISER_BACKGROUND) if random else get_color(config.background_color)
        self.strategy = self._strategy()
        self.strategy_state: dict[str, Any] = self.strategy.initialize_state(scene_scale=1.0)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.info: dict[str, Any] = {}

    def _build_gaussians(self, metadata: dict[str, Any]) -> None:
        config = self.config
        seeds = None if config.random_init else read_seeds(metadata, self.seed_points, config.start)
        if seeds is None or len(seeds) == 0:
            seeds = random_seeds(config.num_random, config.random_scale)
        device = self.kwargs.get("device", "cpu")
        values = initialize_gaussians(seeds, config.start, self.num_train_data, config.sh_degree, device)
        source: Int[Tensor, "n"] | None = None
        if config.staticness.learn == "clip" and self.maps is not None and seeds.pixel is not None:
            if config.densify:
                raise ValueError(
                    "--pipeline.model.staticness.learn clip ties every Gaussian to the pixel it was born at, so there "
                    "can be no others: give --pipeline.model.densify False too, or learn frames."
                )
            frame, row, column = seeds.pixel.long().unbind(-1)
            source = (frame * self.maps.height + row) * self.maps.width + column
            del values["staticness"]
        self.register_buffer("source_pixel", source, False)
        self.source_pixel: Tensor
        self.gauss_params = nn.ParameterDict({name: nn.Parameter(value) for name, value in values.items()})

    def _strategy(self) -> FixedDensity | StaticDensity:
        config = self.config
        if not config.densify:
            return FixedDensity()
        return StaticDensity(
            prune_opa=config.cull_alpha_thresh,
            grow_grad2d=config.densify_grad_thresh,
            grow_scale3d=config.densify_size_thresh,
            prune_scale3d=config.cull_scale_thresh,
            refine_start_iter=config.warmup_length,
            refine_stop_iter=config.stop_split_at,
            reset_every=config.reset_alpha_every * config.refine_every,
            refine_every=config.refine_every,
            pause_refine_after_reset=self.num_train_data + config.refine_every,
            absgrad=config.use_absgrad,
            max_gaussians=config.max_gaussians,
        )

    def set_training_cameras(self, cameras: Cameras, frame_index: Int[Tensor, "n"] | None) -> None:
        """Say where the training cameras stand; the pipeline calls this once, before anything is rendered.

        Args:
            frame_index: place of each training frame in the clip.
        """
        heights, widths = cameras.height.flatten().tolist(), cameras.width.flatten().tolist()
        self.image_sizes = list(zip(heights, widths))
        self._views.clear()
        self.intrinsics.copy_(cameras.get_intrinsics_matrices())
        self.camera_optimizer.set_cameras(cameras, frame_index)
        if self.exposure is not None:
            self.exposure.frame_index.copy_(self.camera_optimizer.frame_index)
        if self.shutter is not None and "camera_motion" in (cameras.metadata or {}):
            self.shutter.set_cameras(cameras)

    @property
    def gaussian_staticness(self) -> Float[Tensor, "n"]:
        """Staticness of every Gaussian, 0..1, differentiable."""
        if "staticness" in self.gauss_params:
            return torch.sigmoid(self.gauss_params["staticness"].flatten())
        assert self.maps is not None
        return self.maps.of_pixels(self.source_pixel)

    @property
    def opacities(self) -> Float[Tensor, "n 1"]:  # type: ignore[override]
        """Logits of the opacities that Gaussians are shown and exported with: staticness folded in, the dynamic ones
        put out of sight."""
        staticness = self.gaussian_staticness[:, None]
        opacity = torch.sigmoid(self.gauss_params["opacities"]) * staticness
        logits = torch.logit(opacity.clamp(1e-8, 1 - 1e-6))
        if self.config.keep_dynamic:
            return logits
        return torch.where(staticness < self.cull_staticness, CULLED_LOGIT, logits)

    @property
    def shs_rest(self) -> Float[Tensor, "n k 3"]:  # type: ignore[override]
        """Higher harmonics as exported, padded to degree 3: many viewers read nothing else."""
        rest = self.features_rest
        return F.pad(rest, (0, 0, 0, max(0, EXPORTED_HARMONICS - rest.shape[1])))

    def splats(self, shown: bool) -> Splats:
        """The Gaussians: all of them as they are trained, or as they are `shown` and exported."""
        if shown:
            opacities = torch.sigmoid(self.opacities.flatten())
        else:
            opacities = torch.sigmoid(self.gauss_params["opacities"].flatten()) * self.gaussian_staticness
        if self.config.sh_degree == 0:
            colors, degree = torch.sigmoid(self.features_dc), None
        else:
            colors = torch.cat((self.features_dc[:, None], self.features_rest), dim=1)
            degree = min(self.step // self.config.sh_degree_interval, self.config.sh_degree)
        return Splats(self.means, self.quats, torch.exp(self.scales), opacities, colors, degree)

    def training_view(self, frame: int) -> View:
        """The refined camera of a training frame, differentiable, without waits."""
        cameras = self.camera_optimizer
        height, width = self.image_sizes[frame]
        if not cameras.learns:
            known = self._views.get(frame)
            if known is None or known.K.device != self.intrinsics.device:
                T_camera_world = view_matrix(cameras.refined(frame), cameras.focal_factor().detach())
                known = self._views[frame] = View(T_camera_world, self.intrinsics[frame][None], height, width)
            return known
        given, correction = cameras.camera_to_worlds[frame], cameras.corrections[frame]
        (T_camera_world,) = self.refined_view(given, correction, cameras.log_focal)
        return View(T_camera_world, self.intrinsics[frame][None], height, width)

    def get_gaussian_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every per-Gaussian value under its own name, so that density control carries it along."""
        return {name: [parameter] for name, parameter in self.gauss_params.items()}

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is learned, by optimizer."""
        groups = self.get_gaussian_param_groups()
        if self.maps is not None and self.config.staticness.learn != "off":
            groups["staticness_maps"] = list(self.maps.maps)
        if self.exposure is not None:
            groups["exposure"] = list(self.exposure.frames)
        if self.shutter is not None:
            groups["shutter"] = [self.shutter.open, self.shutter.readout]
        self.camera_optimizer.get_param_groups(groups)
        return groups

    def update_to_step(self, step: int) -> None:
        """The step a checkpoint was saved at: it decides the degree of the harmonics."""
        self.step = step

    def load_state_dict(self, dict: dict[str, Tensor], **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a checkpoint with any number of Gaussians.

        Parameters keep their identity, so optimizers that hold them go on with them.

        Raises:
            ValueError: the checkpoint belongs to other frames or another kind of model.
        """
        for name, parameter in self.gauss_params.items():
            key = f"gauss_params.{name}"
            if key not in dict:
                raise ValueError(f"the checkpoint has no {key}: it was written by another method or configuration")
            parameter.data = parameter.new_zeros((len(dict[key]), *parameter.shape[1:]))
        mine = self.state_dict()
        for key, value in dict.items():
            if key in mine and mine[key].shape != value.shape:
                raise ValueError(
                    f"the checkpoint was trained on other data: {key} is {tuple(value.shape)} there and "
                    f"{tuple(mine[key].shape)} here. Give the same --data and dataparser options as in training."
                )
        return Model.load_state_dict(self, dict, **kwargs)
