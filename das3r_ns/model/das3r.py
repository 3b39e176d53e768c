"""The model: splatfacto's Gaussians, with staticness on every training pixel and every Gaussian.

In: a frame a step; out: the terms of its loss. What is shown of a model is in `shown`.
A training frame is known by its number (`cam_idx`, `image_idx`); a frame of the clip by `frame_index`.

A step never waits for the GPU: no `.item()`, no branch on a tensor, no tensor made on the host. Numbers that change
over the steps (resolution, degree of the harmonics) follow from `step`, which is a Python int.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from das3r_ns.model import frame_metrics, losses
from das3r_ns.model.density import prune
from das3r_ns.model.frame_loss import ExtraTensors, ExtraTerms, FrameTerms, frame_terms, masked_terms, published_terms
from das3r_ns.model.graphed import Graphed
from das3r_ns.model.map_edits import MapChange, add_uncovered, remove_ghosts, take_maps
from das3r_ns.model.remarking import ErrorMemory, missed_motion
from das3r_ns.model.rendering import draw
from das3r_ns.model.shown import ShownModel
from das3r_ns.model.shutter import blurred


class Das3rModel(ShownModel):
    """Gaussian splatting of what does not move."""

    def populate_modules(self) -> None:
        """Build what the state consists of, and what a step remembers."""
        super().populate_modules()
        self.errors: ErrorMemory | None = None
        self.perceptual = frame_metrics.PerceptualMetric()
        self._compared: tuple[Tensor, tuple[Tensor, FrameTerms]] | None = None  # see `_compare`
        if self.maps is not None:
            self.extras = ExtraTerms(self.shutter is not None, self.exposure is not None, self.config.hidden.weight)
            terms = partial(
                frame_terms, ssim_lambda=self.config.ssim_lambda, config=self.maps.config, extras=self.extras
            )
            self.frame_terms = Graphed(terms, self.config.cuda_graphs)

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Splatfacto's, and what happens to the maps between steps."""
        self._in_training = True
        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.after_step),
        ]

    def after_step(self, step: int) -> None:
        """Keep the maps in range; now and then look for moving pixels that were missed."""
        if self.maps is None:
            return
        self.maps.confine()
        if step + 1 in self.config.remarking.at_steps:
            self.remark()

    @torch.no_grad()
    def remark(self) -> None:
        """Mark what the render fails to explain near motion evidence, then judge every Gaussian by where it paints."""
        maps, config = self.maps, self.config.remarking
        if maps is None or self.errors is None:
            return
        static = torch.stack([maps.values(i) for i in range(maps.num_frames)])
        missed = missed_motion(self.errors.errors, self.dynamic_prob, static, config)
        lowered = torch.where(missed, config.staticness, 1.0)
        for frame in range(maps.num_frames):
            maps.lower(frame, lowered[frame])
        newly = float((missed & (static > 0.5)).float().mean())
        removed = self._judge_gaussians() if "staticness" in self.gauss_params else 0
        CONSOLE.log(
            f"Step {self.step + 1}: {newly:.1%} of all pixels newly marked as moving, "
            f"{removed} Gaussians removed that no static pixel shows"
        )

    def take_dynamic_prob(self, frames: dict[int, Tensor], images: dict[int, Tensor]) -> MapChange:
        """Go on with other maps: see `map_edits.take_maps`.

        Args:
            frames: `dynamic_prob` [h w] by training frame.
            images: [H W 3] of those frames, colours in 0..1.
        """
        change = take_maps(self, frames)
        if self.config.densify and "staticness" in self.gauss_params:
            change.removed = remove_ghosts(self, change)
            change.added = add_uncovered(self, change, images)
        self._guessed = None
        return change

    def _judge_gaussians(self) -> int:
        """Remove the Gaussians that no static pixel speaks for; returns how many."""
        config = self.config.remarking
        static, everywhere = self.support().unbind(-1)
        doomed = (static < config.min_support) | (static < config.min_share * everywhere)
        return prune(self.gauss_params, self.optimizers, self.strategy_state, doomed)

    def get_outputs(self, camera: Cameras) -> dict[str, Tensor]:  # type: ignore[override]
        """Render a camera: a training frame while training, any camera otherwise."""
        return self._training_outputs(camera) if self.training else self.shown_outputs(camera)

    def _training_outputs(self, camera: Cameras) -> dict[str, Tensor]:
        assert camera.metadata is not None
        frame = camera.metadata["cam_idx"]
        background = self._get_background_color()
        image = draw(
            self.splats(shown=False),
            self.training_view(frame).shrunk(self._get_downscale_factor()),
            self.config.rasterize_mode,
            background,
            with_depth=self.depth_supervision is not None and self.step < self.config.depth_until,
            absgrad=self.strategy.absgrad,
            rasterizer=self.config.rasterizer,
        )
        self.info = image.info  # `rgb` is not yet blurred and exposed: that is recorded together with the loss
        outputs = {"rgb": image.color, "accumulation": image.alpha, "background": background}
        return outputs if image.depth is None else {**outputs, "depth": image.depth}

    def _target(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> Tensor:
        """The image to compare with, as large as the render."""
        return self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])

    def _compare(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> tuple[Tensor, FrameTerms]:
        """The image and what it says about the render, once a step for metrics and loss alike."""
        frame, rgb, maps = int(batch["image_idx"]), outputs["rgb"], self.maps
        if self._compared is not None and self._compared[0] is rgb:
            return self._compared[1]
        image = self._target(outputs, batch)
        if not self.training or maps is None:
            terms = self._terms_without_maps(rgb, image, batch)
        elif self.config.loss == "published":
            counts, more = self.frame_weight[frame], self._more_terms(image, frame)
            terms = published_terms(rgb, image, maps, frame, counts, self.config.ssim_lambda, self.extras, more)
        else:
            static, start, counts = maps.values(frame), maps.start[frame], self.frame_weight[frame]
            more = self._more_terms(image, frame)
            terms = FrameTerms(*self.frame_terms(rgb, image, static, start, counts, *more))
        self._compared = (rgb, (image, terms))
        return image, terms

    def _more_terms(self, image: Tensor, frame: int) -> tuple[Tensor, ...]:
        """What `ExtraTerms` look at, in a row."""
        return ExtraTensors(
            shutter=() if self.shutter is None else self.shutter.of_frame(frame),
            exposure=() if self.exposure is None else self.exposure.of_frame(image, frame),
            ground=() if self.hidden_ground is None else self.hidden_ground.of_frame(image, frame),
        ).in_a_row()

    def _terms_without_maps(self, rgb: Tensor, image: Tensor, batch: dict[str, Any]) -> FrameTerms:
        """Terms of evaluation, and of data without a predictor: the mask, if there is one, decides what counts."""
        weight, exposure, frame_weight = torch.ones_like(image[..., :1]), None, None
        if self.training:
            frame = int(batch["image_idx"])
            rgb, frame_weight = self._filmed(rgb, frame), self.frame_weight[frame]
            exposure = None if self.exposure is None else self.exposure.regularizer(frame)
        if "mask" in batch:
            weight = self._downscale_if_required(batch["mask"].to(self.device).float())
        return masked_terms(rgb, image, weight, self.config.ssim_lambda, frame_weight, exposure)

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Any]:
        """Static PSNR of the frame and the number of Gaussians."""
        return {"psnr": self._compare(outputs, batch)[1].psnr, "gaussian_count": self.num_points}

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """All terms of the loss, weighted."""
        config, frame, rgb = self.config, int(batch["image_idx"]), outputs["rgb"]
        image, terms = self._compare(outputs, batch)
        result = {"photometric": terms.photometric}
        if not self.training:
            return result
        if self.maps is not None and self.maps.config.learn != "off":
            if config.loss == "static":
                result["staticness"] = terms.staticness
            if self.maps.config.prior_weight > 0:
                result["staticness_prior"] = terms.prior
        if self.maps is not None and config.remarking.at_steps:
            if self.errors is None:
                self.errors = ErrorMemory(self.dynamic_prob.shape, self.device)
            with torch.no_grad():
                error = (self._filmed(rgb, frame) - image).abs()
            self.errors.remember(frame, error.mean(dim=-1, keepdim=True))
        if self.depth_supervision is not None and "depth" in outputs:
            error = self.depth_supervision.loss(outputs["depth"], outputs["accumulation"], terms.weight, frame)
            result["depth"] = config.depth_weight * error
        if self.hidden_ground is not None:
            result["hidden"] = terms.hidden
        if self.exposure is not None:
            result["exposure"] = terms.exposure
        if self.camera_optimizer.learns:
            result["camera_opt"] = self.camera_optimizer.regularizer(frame)
            self._gate_cameras(rgb, image, frame)
        if config.use_scale_regularization and self.step % 10 == 0:
            ratio = (self.scales.amax(dim=-1) - self.scales.amin(dim=-1)).exp()
            result["scale_reg"] = 0.1 * (ratio - config.max_gauss_ratio).clamp_min(0).mean()
        return result

    @torch.no_grad()
    def _gate_cameras(self, rgb: Tensor, image: Tensor, frame: int) -> None:
        """Let this step move the camera only if its image is explained well enough already."""
        least = self.config.camera_optimizer.min_psnr
        if least is None or "camera_opt" not in self.optimizers:
            return
        height, width = image.shape[:2]
        static = torch.ones_like(image[..., :1]) if self.maps is None else self.maps.weight(frame, height, width)
        self.optimizers["camera_opt"].gate = losses.published_psnr(self._filmed(rgb, frame), image, static) > least

    def _filmed(self, render: Tensor, frame: int) -> Tensor:
        """The render as its training frame was filmed: blurred and exposed."""
        if self.shutter is not None:
            render = blurred(render, *self.shutter.of_frame(frame))
        return render if self.exposure is None else self.exposure.expose(render, frame)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of one rendered frame (see `frame_metrics.metrics`), and image, render and mask side by side."""
        image = self._target(outputs, batch)
        mask = batch.get("mask")
        static = torch.ones_like(image[..., :1]) if mask is None else mask.to(image)
        values = frame_metrics.metrics(outputs["rgb"], image, static, has_mask=mask is not None)
        perceptual = self.perceptual(outputs["rgb"], image, static)
        if perceptual is not None:
            values["lpips"] = perceptual
        return values, {"img": torch.cat((image, outputs["rgb"], static.expand_as(image)), dim=1)}
