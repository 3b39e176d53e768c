"""The model on a GPU that is pretended: nothing mixes devices, and a step waits for nothing."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.types import MethodSpecification
from pretend_cuda import on_gpu, on_host, pretended_gpu

from das3r_ns import config
from das3r_ns.model import das3r, frame_loss, poses
from das3r_ns.model import shown as shown_module
from das3r_ns.model.das3r import Das3rModel
from das3r_ns.model.rasterizer.cpu import rasterize_cpu
from das3r_ns.model.rasterizer.inputs import RasterizerInputs
from das3r_ns.model.remarking import RemarkingConfig
from das3r_ns.model.staticness import StaticnessConfig

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which tests this better")

FRAMES, HEIGHT, WIDTH, POINTS = 3, 24, 32, 40


@pytest.fixture(autouse=True)
def _rasterize_on_the_cpu(monkeypatch):
    def rasterized(inputs: RasterizerInputs) -> Any:
        assert len(inputs.means) > 0
        return on_gpu(rasterize_cpu(on_host(inputs)))

    monkeypatch.setattr("das3r_ns.model.rasterizer.gpu.rasterize_gpu", torch.no_grad()(rasterized))


def wall() -> tuple[Cameras, dict[str, Any]]:
    """Cameras side by side in front of a wall of seed points, and the dataparser's metadata."""
    xyz = torch.rand(POINTS, 3) - torch.tensor([0.5, 0.5, 2.0])
    T = torch.eye(4)[:3].repeat(FRAMES, 1, 1)
    T[:, 0, 3] = torch.linspace(-0.1, 0.1, FRAMES)
    column, frame_index = torch.ones(FRAMES, 1), torch.arange(FRAMES)
    cameras = Cameras(
        camera_to_worlds=T, fx=column * HEIGHT, fy=column * HEIGHT, cx=column * WIDTH / 2, cy=column * HEIGHT / 2,
        width=(column * WIDTH).long(), height=(column * HEIGHT).long(), camera_type=CameraType.PERSPECTIVE,
        metadata={"frame_index": frame_index[:, None]},
    )  # fmt: skip
    maps = (FRAMES, HEIGHT // 2, WIDTH // 2)
    dynamic_prob = torch.zeros(maps)
    dynamic_prob[:, 2:6, 3:7] = 0.9
    frame, row, col = (torch.randint(0, size, (POINTS,)) for size in maps)
    metadata = {
        "points3D_xyz": xyz,
        "points3D_rgb": torch.randint(0, 256, (POINTS, 3), dtype=torch.uint8),
        "points3D_scale": torch.full((POINTS,), 0.05),
        "points3D_staticness": torch.ones(POINTS),
        "points3D_pixel": torch.stack([frame, row, col], dim=-1).int(),
        "dynamic_prob": dynamic_prob,
        "depth": torch.ones(maps),
        "confidence": torch.ones(maps),
    }
    return cameras, metadata


def model_on_gpu(method: MethodSpecification, **options: Any) -> tuple[Das3rModel, Cameras]:
    """A model as the trainer builds it, on the pretended GPU, and its training cameras on the CPU."""
    settings: Any = copy.deepcopy(method.config.pipeline.model)
    for name, value in {"cuda_graphs": False, **options}.items():
        setattr(settings, name, value)
    cameras, metadata = wall()
    model = settings.setup(
        scene_box=SceneBox(aabb=torch.ones(2, 3)), num_train_data=FRAMES, metadata=metadata, device="cuda",
        seed_points=None, grad_scaler=None,
    )  # fmt: skip
    model.to("cuda")
    model.set_training_cameras(cameras, cameras.metadata["frame_index"].flatten())
    return model.train(), cameras


def step(model: Das3rModel, cameras: Cameras, frame: int) -> dict[str, torch.Tensor]:
    """Forward and loss of a training step."""
    camera = cameras[frame : frame + 1].to("cuda")
    camera.metadata = {"cam_idx": frame}
    batch = {"image": torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8, device="cuda"), "image_idx": frame}
    outputs = model.get_outputs(camera)
    metrics = model.get_metrics_dict(outputs, batch)
    return model.get_loss_dict(outputs, batch, metrics)


METHODS = {
    "das3r": (config.das3r, {}),
    "das3r-lite": (config.das3r_lite, {}),
    "das3r-paper": (config.das3r_paper, {}),
    "refined cameras": (config.das3r, {"camera_optimizer": poses.PoseRefinementConfig(refine_focal=True)}),
    "depth, no densification": (config.das3r, {"depth_weight": 0.1, "densify": False}),
    "scale regularisation": (config.das3r, {"use_scale_regularization": True, "background_color": "white"}),
}


@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS.keys())
def test_a_step_mixes_no_devices(method, options):
    with pretended_gpu():
        model, cameras = model_on_gpu(method, **options)
        for frame in range(FRAMES):
            losses = step(model, cameras, frame)
            assert all(value.is_cuda for value in losses.values())
            assert float(sum(losses.values())) > 0


@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS.keys())
def test_a_step_waits_for_nothing_once_its_frame_is_known(method, options):
    with pretended_gpu() as waits:
        model, cameras = model_on_gpu(method, **options)
        cameras = cameras.to("cuda")
        for frame in range(FRAMES):
            step(model, cameras, frame)
        waits.names.clear()
        for frame in range(FRAMES):
            step(model, cameras, frame)
        assert not waits.names


@pytest.mark.parametrize("learns", ["frames", "off"])
def test_what_is_recorded_waits_for_nothing_and_makes_no_tensor_on_the_host(learns):
    extras = frame_loss.ExtraTerms(exposure=True, hidden_weight=0.1)
    terms = partial(frame_loss.frame_terms, ssim_lambda=0.2, config=StaticnessConfig(learn=learns), extras=extras)
    with pretended_gpu() as waits:
        rgb, image = torch.rand(2, HEIGHT, WIDTH, 3, device="cuda")
        static, start = torch.rand(2, HEIGHT // 2, WIDTH // 2, device="cuda")
        camera = torch.eye(4, device="cuda")[:3], torch.zeros(6, device="cuda"), torch.zeros((), device="cuda")
        more = torch.zeros(7, 3, device="cuda"), torch.rand(HEIGHT, WIDTH, 5, device="cuda")
        ground = torch.rand(1, 3, 4, 6, device="cuda"), torch.rand(1, 1, 4, 6, device="cuda")
        for _ in range(2):  # the first call makes what is kept, as the steps before a recording do
            waits.names.clear()
            terms(rgb, image, static, start, torch.ones((), device="cuda"), *more, *ground)
            poses.refined_view(*camera)
        assert not waits.names


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS.keys())
def test_what_is_shown_and_measured_mixes_no_devices(method, options, where, monkeypatch):
    monkeypatch.setattr(shown_module, "support", looked_at)
    with pretended_gpu():
        model, cameras = model_on_gpu(method, **options)
        model.eval()
        shown = cameras[:1].to(where)
        outputs = model.get_outputs_for_camera(shown)
        assert all(value.is_cuda for value in outputs.values())
        shown.metadata = {"exposure_index": torch.tensor([[1]])}
        assert model.get_outputs_for_camera(shown)["rgb"].is_cuda
        batch = {"image": torch.zeros(HEIGHT, WIDTH, 3), "image_idx": 0, "mask": torch.ones(HEIGHT, WIDTH, 1).bool()}
        monkeypatch.setattr(model, "perceptual", lambda *images: None)
        values, images = model.get_image_metrics_and_images(outputs, batch)
        assert values["static_psnr"] > 0
        assert images["img"].is_cuda
        corrected, factors = model.camera_optimizer.refine(cameras, cameras.metadata["frame_index"])
        assert corrected.device == factors.device == cameras.device
        assert model.camera_optimizer.apply_to_camera(shown).device == shown.device


def looked_at(render: Any, weight: Any, num_frames: int, values: torch.Tensor) -> torch.Tensor:
    """In place of `remarking.support`, whose gradient cannot be had here: what it renders and weighs by."""
    for frame in range(num_frames):
        image, static = render(frame, values), weight(frame)
        assert image.is_cuda
        assert static.is_cuda
    return values + 1


def test_moving_pixels_are_looked_for_on_the_gpu(monkeypatch):
    monkeypatch.setattr(shown_module, "support", looked_at)
    removed = []
    monkeypatch.setattr(das3r, "prune", lambda *arguments: removed.append(arguments[-1]) or 0)
    with pretended_gpu():
        model, cameras = model_on_gpu(config.das3r, remarking=RemarkingConfig(at_steps=(1,)))
        for frame in range(FRAMES):
            step(model, cameras, frame)
        model.step = 0
        model.after_step(0)
        assert removed[0].is_cuda


def test_a_mixture_and_a_wait_are_noticed():
    with pretended_gpu() as waits:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for mixes in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[torch.zeros(1, dtype=torch.long, device="cuda")],
            lambda: there.numpy(),
        ):
            with pytest.raises(RuntimeError):
                mixes()
        assert not waits.names
        assert there[torch.tensor([0])].is_cuda  # allowed, and a wait
        assert float((there * torch.tensor(2.0)).sum()) == 6.0
        assert there[there > 2].numel() == 0
        assert len(waits.names) == 3
