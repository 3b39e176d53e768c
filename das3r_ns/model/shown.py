"""What is shown of a model: any camera, outside a training step.

In: a camera, of a frame or free. Out: `rgb`, `depth`, `accumulation`, `staticness`, `unseen`, `background`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from das3r_ns.model.hidden import guessed
from das3r_ns.model.poses import view_matrix
from das3r_ns.model.remarking import support
from das3r_ns.model.rendering import View, draw
from das3r_ns.model.state import Das3rState


class ShownModel(Das3rState):
    """The state, and how it is looked at; `das3r.Das3rModel` trains it."""

    def populate_modules(self) -> None:
        """Build what the state consists of, and what viewers set."""
        super().populate_modules()
        self.viewer_outputs: Callable[[Cameras, dict[str, Tensor]], dict[str, Tensor]] | None = None
        self.guesses_wanted = True
        """Off while what is shown has no use for `unseen`: finding guesses takes an epoch."""
        self._in_training = False
        self._guessed: Tensor | None = None

    def support(self) -> Tensor:
        """What each Gaussian contributes to static pixels and to all pixels of the training frames."""
        maps = self.maps
        assert maps is not None
        splats = self.splats(shown=False)

        def render(frame: int, values: Tensor) -> Tensor:
            with torch.no_grad():  # nobody asks for the cameras' part
                view = self.training_view(frame)
            return draw(
                splats.carrying(values), view, self.config.rasterize_mode, rasterizer=self.config.rasterizer
            ).color

        def weight(frame: int) -> Tensor:
            return maps.counted(frame, *self.image_sizes[frame])

        return support(render, weight, self.num_train_data, self.means.new_zeros(self.num_points, 2))

    def load_state_dict(self, dict: dict[str, Tensor], **kwargs: Any) -> Any:  # type: ignore[override]
        """See `Das3rState`."""
        self._guessed = None
        return super().load_state_dict(dict, **kwargs)

    def _guesses(self) -> Tensor:
        """1 for Gaussians that show ground no training frame showed. Looked up once in a trained model; while training
        goes on, 0: it takes as long as an epoch of steps, and the viewer would wait for it."""
        if self.hidden_ground is None or self._in_training or not self.guesses_wanted:
            return self.means.new_zeros(self.num_points, 1)
        known = self._guessed
        if known is None or len(known) != self.num_points:
            static, everywhere = self.support().unbind(-1)
            known = self._guessed = guessed(static, everywhere, self.num_train_data, self.config.hidden)
        return known

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Splatfacto's; in a viewer also what its panel adds about the frames of the clip."""
        outputs = super().get_outputs_for_camera(camera, obb_box)
        return outputs if self.viewer_outputs is None else {**outputs, **self.viewer_outputs(camera, outputs)}

    @torch.no_grad()
    def culled_layer(self, camera: Cameras) -> Float[Tensor, "h w 4"]:
        """The Gaussians that `cull_staticness` takes out of sight, alone and as if they were static: colour times
        alpha, and alpha."""
        culled = self.gaussian_staticness < self.cull_staticness
        height, width = int(camera.height.item()), int(camera.width.item())
        if not bool(culled.any()):
            return self.means.new_zeros(height, width, 4)
        splats = self.splats(shown=False)[culled]
        splats = replace(splats, opacities=torch.sigmoid(self.gauss_params["opacities"].flatten())[culled])
        image = draw(splats, self._view(camera)[0], self.config.rasterize_mode, rasterizer=self.config.rasterizer)
        return torch.cat((image.color.clamp(0, 1), image.alpha), dim=-1)

    def _view(self, camera: Cameras) -> tuple[View, Tensor | None]:
        """Where a camera that is shown stands, refined if it is a frame's; and that frame's place in the clip."""
        place = (camera.metadata or {}).get("frame_index")
        pose, factor = camera.camera_to_worlds, torch.ones(1)
        if place is not None:
            pose, factor = self.camera_optimizer.refine(camera, place)
        view = View(
            view_matrix(pose.to(self.device), factor[0].to(self.device)),
            camera.get_intrinsics_matrices().to(self.device),
            int(camera.height.item()),
            int(camera.width.item()),
        )
        return view, place

    @torch.no_grad()
    def shown_outputs(self, camera: Cameras) -> dict[str, Tensor]:
        """All outputs of a camera, with staticness and where no frame saw a static surface."""
        background = self.background_color.to(self.device)
        splats = self.splats(shown=True)
        carried = torch.cat((self.gaussian_staticness[:, None], self._guesses()), dim=-1)
        if self.crop_box is not None:
            inside = self.crop_box.within(self.means).flatten()
            splats, carried = splats[inside], carried[inside]
        metadata = camera.metadata or {}
        view, place = self._view(camera)
        # A camera that is to stay where it is may say separately which frame's exposure it wants.
        exposed = metadata.get("exposure_index", place)
        image = draw(
            splats,
            view,
            self.config.rasterize_mode,
            background,
            extra=carried,
            with_depth=True,
            rasterizer=self.config.rasterizer,
        )
        rgb, alpha, depth = image.color, image.alpha, image.depth
        assert depth is not None
        share = image.extra / alpha.clamp_min(1e-6)
        motion = metadata.get("camera_motion")
        if self.shutter is not None and motion is not None:
            rgb = self.shutter.blur(rgb, depth, view.K[0], motion.reshape(-1, 6)[0].to(rgb))
        if self.exposure is not None and exposed is not None:
            rgb = self.exposure.expose_at(rgb, exposed.flatten()[:1])
        return {
            "rgb": rgb.clamp(0, 1),
            "depth": torch.where(alpha > 0, depth, depth.max()),
            "accumulation": alpha,
            "staticness": share[..., :1],
            # Less than half covered, or covered by a guess: no frame showed a static surface there.
            "unseen": ((alpha < 0.5) | (share[..., 1:] > 0.5)).float(),
            "background": background.expand(view.height, view.width, 3),
        }
