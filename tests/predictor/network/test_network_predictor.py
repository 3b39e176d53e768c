"""The network predictor from clip to scene: with a tiny random network, and with pairs that say the truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_network import TINY, small_heads
from wavy_wall import FOCAL, HEIGHT, WIDTH, World

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.files.download import DownloadError, Patience
from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.flow import raft
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.network import memory as network_memory
from das3r_ns.predictor.network import predictor
from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.memory import check_memory, memory_need
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.predictor import NetworkPredictor
from das3r_ns.predictor.network.settings import AlignmentConfig, NetworkPredictorConfig, PairGraph, WindowConfig
from das3r_ns.predictor.network.weights import WeightsReport, save_weights
from das3r_ns.predictor.network.weights_source import WeightsError
from das3r_ns.predictor.seed_points import seed_points
from das3r_ns.scene import read_scene, write_scene
from das3r_ns.video.clip import Clip

FRAMES = 6
# Images are twice the size of the network's input.
SIZE = (2 * HEIGHT, 2 * WIDTH)


def settings(**changes) -> NetworkPredictorConfig:
    quick = AlignmentConfig(num_steps=120, flow_weight=0.0)
    config = NetworkPredictorConfig(long_side=WIDTH, device="cpu", alignment=quick, masks_from="network")
    return replace(config, **changes)


def clip_of(num_frames: int, size: tuple[int, int] = SIZE) -> Clip:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (num_frames, *size, 3), dtype=torch.uint8, generator=generator)
    return Clip(frames, 24.0, tuple(f"{k:03d}.png" for k in range(num_frames)))


narrow = pytest.fixture(scope="module", autouse=True)(small_heads)


@pytest.fixture(scope="module")
def tiny() -> PairwiseNetwork:
    torch.manual_seed(4)
    return PairwiseNetwork(TINY).eval()


@pytest.fixture
def truthful(monkeypatch, tiny) -> World:
    """The predictor with pairs from a known world instead of the network's."""
    world = World(FRAMES)
    seen = []

    def predict_pairs(network, images, edges, config, frames, memory):
        seen.append(images.shape)
        return world.predict(range(len(images)), edges)

    monkeypatch.setattr(predictor, "load_network", lambda source, device: (tiny, WeightsReport("", False, False)))
    monkeypatch.setattr(predictor, "predict_pairs", predict_pairs)
    yield world
    assert seen == [(FRAMES, 3, HEIGHT, WIDTH)] * len(seen)


def test_a_scene_comes_out_levelled_and_in_pixels_of_the_clip(truthful):
    scene = NetworkPredictor(settings())(clip_of(FRAMES))
    assert pose_errors(scene.T_world_camera, truthful.T).ate_percent < 2
    assert scene.image_size == SIZE
    torch.testing.assert_close(scene.K[:, 0, 0], torch.full((FRAMES,), 2 * FOCAL), rtol=0.02, atol=0)
    torch.testing.assert_close(scene.K[0, :2, 2], torch.tensor([WIDTH, HEIGHT], dtype=torch.float32))
    assert float(scene.depth.median()) == pytest.approx(1, abs=0.1)
    up = -scene.T_world_camera[:, :3, 1].mean(0)
    assert float(up[2]) > 0.99
    assert torch.equal(scene.dynamic_prob > 0.5, truthful.dynamic)
    assert scene.names == clip_of(FRAMES).names
    assert scene.fps == 24
    assert scene.pose_known.all()
    assert scene.provenance["predictor"] == "network"
    assert 1000 < len(scene.points) <= FRAMES * HEIGHT * WIDTH


def test_the_scene_can_be_written_and_read(truthful, tmp_path):
    clip = clip_of(FRAMES)
    scene = NetworkPredictor(settings(raft_weights=None))(clip)
    write_scene(scene, clip.frames, tmp_path / "scene")
    again = read_scene(tmp_path / "scene")
    torch.testing.assert_close(again.T_world_camera, scene.T_world_camera, atol=1e-5, rtol=1e-5)
    assert len(again.points) == len(scene.points)


def test_known_cameras_masks_and_focal_length_are_kept(truthful):
    K = geometry.rescale_intrinsics(truthful.K, (HEIGHT, WIDTH), SIZE).repeat(FRAMES, 1, 1)
    mask = torch.zeros(FRAMES, *SIZE)
    mask[:, :20] = 1
    known = UserPriors(T_world_camera=truthful.T, K=K, dynamic_mask=mask)
    scene = NetworkPredictor(settings())(clip_of(FRAMES), known)
    assert torch.equal(scene.T_world_camera, truthful.T)
    assert torch.equal(scene.K, K)
    assert scene.dynamic_prob[:, :10].eq(1).all()
    assert scene.dynamic_prob[:, 10:].eq(0).all()
    assert float((scene.depth / truthful.depth).median()) == pytest.approx(1, abs=0.1)
    focal = NetworkPredictor(settings())(clip_of(FRAMES), UserPriors(focal_px=90.0)).K[:, 0, 0]
    torch.testing.assert_close(focal, torch.full((FRAMES,), 90.0))


def test_flow_is_measured_on_the_networks_input(truthful):
    seen = set()

    def estimator(a, b):
        seen.add((a.shape, str(a.dtype)))
        return np.zeros((*a.shape[:2], 2), np.float32)

    alignment = AlignmentConfig(num_steps=20, flow_weight=0.03, flow_max_distance=1)
    network = NetworkPredictor(settings(alignment=alignment))
    network._estimator = estimator
    scene = network(clip_of(FRAMES))
    assert seen == {((HEIGHT, WIDTH, 3), "uint8")}
    assert scene.T_world_camera.isfinite().all()


def test_long_clips_go_through_in_windows(truthful, capsys):
    windows = WindowConfig(frames=6, overlap=2, max_loops=0)
    NetworkPredictor(settings(windows=windows))(clip_of(FRAMES))
    assert "1 window of 6 frames" in " ".join(capsys.readouterr().out.split())


def test_weights_without_mask_heads_need_the_users_masks(truthful, monkeypatch, tiny):
    monkeypatch.setattr(predictor, "load_network", lambda source, device: (tiny, WeightsReport("", True, False)))
    with pytest.raises(PredictionError, match="no dynamic-mask heads"):
        NetworkPredictor(settings())(clip_of(FRAMES))
    scene = NetworkPredictor(settings())(clip_of(FRAMES), UserPriors(dynamic_mask=torch.zeros(FRAMES, *SIZE)))
    assert scene.dynamic_prob.eq(0).all()
    scene = NetworkPredictor(settings(masks_from="evidence", masks=MaskConfig(refiner="none")))(clip_of(FRAMES))
    assert scene.dynamic_prob.isfinite().all()


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (64, 64), (50, 96)])
def test_any_shape_of_image_gives_maps_of_the_whole_image(tiny, tmp_path, size):
    save_weights(tiny, tmp_path / "weights")
    clip = clip_of(2, size)
    scene = NetworkPredictor(settings(weights=str(tmp_path / "weights")))(clip)
    height, width = scene.map_size
    assert width / height == pytest.approx(size[1] / size[0], rel=0.05)
    for field in (scene.T_world_camera, scene.K, scene.depth, scene.confidence, scene.dynamic_prob):
        assert field.isfinite().all()
    assert len(scene.points) <= 150_000


def test_identical_frames_go_through(tiny, monkeypatch):
    monkeypatch.setattr(predictor, "load_network", lambda source, device: (tiny, WeightsReport("", False, False)))
    clip = clip_of(1)
    same = Clip(clip.frames.repeat(4, 1, 1, 1), clip.fps, clip.names * 4)
    scene = NetworkPredictor(settings())(same)
    assert scene.T_world_camera.isfinite().all()


def test_one_frame_is_refused_before_the_weights_are_read():
    with pytest.raises(PredictionError, match="the clip has 1 frame"):
        NetworkPredictor(settings(weights="/nowhere"))(clip_of(1))


def test_missing_weights_are_told(tmp_path):
    with pytest.raises(WeightsError, match="No weights at"):
        NetworkPredictor(settings(weights=str(tmp_path / "nowhere.pth")))(clip_of(2))


def test_raft_that_cannot_be_had_is_told_when_the_predictor_is_built(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(raft, "WEIGHTS_URL", "http://127.0.0.1:9/raft.pth")  # nobody listens there
    monkeypatch.setattr(raft, "PATIENCE", Patience(attempts=1))
    with pytest.raises(DownloadError, match="use flow dis"):
        NetworkPredictor(settings(flow="raft", alignment=AlignmentConfig()))
    NetworkPredictor(settings(flow="auto", alignment=AlignmentConfig()))  # fetches nothing
    NetworkPredictor(settings(flow="raft"))  # whose alignment uses no flow


def need(num_frames: int, size: tuple[int, int] = (288, 512), dtype: torch.dtype = torch.bfloat16):
    return memory_need(
        num_frames=num_frames,
        size=size,
        graph=PairGraph(),
        windows=WindowConfig(),
        inference=replace(NetworkPredictorConfig().inference, memory_gib=6.0),
        network=PairwiseNetworkConfig(),
        num_weights=611_868_426,  # of the published network
        dtype=dtype,
        device=torch.device("cuda"),
    )


def test_memory_does_not_grow_with_the_clip_and_500_frames_fit_24_gib():
    assert need(500).windows == 8
    assert need(500).device < 24 * 2**30
    assert need(5000).device == pytest.approx(need(500).device, rel=0.1)
    assert need(50).pairs == 450
    assert "GiB of device memory and" in str(need(50))
    assert "GiB of device memory (more where it is free" in str(need(50, dtype=torch.float32))


def test_a_clip_that_will_not_fit_is_refused_before_the_network_runs(truthful, monkeypatch):
    told = []
    monkeypatch.setattr(predictor.CONSOLE, "print", lambda text, **_: told.append(str(text)))
    monkeypatch.setattr(network_memory, "available_bytes", lambda: 2**20)
    monkeypatch.setattr(predictor, "predict_pairs", lambda *_: pytest.fail("the network ran"))
    with pytest.raises(PredictionError, match=r"frames in windows of .* GiB of main memory, of which 0.0 GiB are free"):
        NetworkPredictor(settings())(clip_of(FRAMES))


def test_a_clip_that_may_not_fit_is_told(monkeypatch):
    asked = replace(need(50), device=8 * 2**30, host=2**30)
    cpu = torch.device("cpu")
    monkeypatch.setattr(network_memory, "available_bytes", lambda: 10 * 2**30)
    assert check_memory(asked, 2**30, cpu, 50, 512) is None
    monkeypatch.setattr(network_memory, "available_bytes", lambda: 7 * 2**30)
    warning = check_memory(asked, 2**30, cpu, 50, 512)
    assert warning is not None
    assert "about 8.0 GiB of main memory, of which 7.0 GiB are free: it may not fit. Use shorter windows" in warning
    monkeypatch.setattr(network_memory, "available_bytes", lambda: 5 * 2**30)
    with pytest.raises(PredictionError, match=r"--network.long-side, now 512"):
        check_memory(asked, 2**30, cpu, 50, 512)


def test_seed_points_lie_on_static_sure_pixels_and_repeat(truthful):
    clip = clip_of(FRAMES)
    scene = NetworkPredictor(settings(max_points=500))(clip)
    assert 400 < len(scene.points) <= 500
    assert scene.points.staticness.min() > 0.75
    again = seed_points(scene, clip.frames, 500)
    assert torch.equal(again.xyz, scene.points.xyz)
    # Each point projects onto the pixel that gave it its colour.
    frame = int(scene.points.frame[7])
    local = geometry.transform(geometry.invert(scene.T_world_camera[frame]), scene.points.xyz[7])
    pixel, _ = geometry.project(local, scene.K[frame])
    u, v = (pixel / 2).floor().long().tolist()
    torch.testing.assert_close(clip.frames[frame, 2 * v + 1, 2 * u + 1], scene.points.rgb[7])
    assert len(seed_points(scene, clip.frames, 0)) == 0
