"""Nerfstudio's own commands on a tiny clip, in this process: train, evaluate, render, export, view, resume.

One trained run is shared. The clip is synthetic and its scene folder is made from the truth, so no predictor runs.
"""

import gzip
import http.client
import json
import socket
import threading
import time
import types
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData
from tiny_run import STEPS, scene_from_truth, tiny_config, train

from das3r_ns.evaluation.runs import _where_it_stands
from das3r_ns.model.shutter import START, blurred
from das3r_ns.render.cameras import sharp

pytestmark = pytest.mark.xdist_group("nerfstudio")


@dataclass
class Run:
    config: Path
    scene: Path
    last_losses: list[float]

    @property
    def checkpoint(self) -> Path:
        return next((self.config.parent / "nerfstudio_models").glob("*.ckpt"))


def lite_config(scene: Path, out: Path):
    """`das3r-lite` with everything switched on."""
    config = tiny_config("das3r-lite", scene, out)
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.resolution_schedule = 2, 4, 4
    model.remarking.at_steps, model.camera_optimizer.refine_focal, model.exposure = (12,), True, True
    model.depth_weight, model.camera_optimizer.mode = 0.1, "quaternion"
    return config


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("nerfstudio")
    scene = scene_from_truth(folder / "walk")
    config, losses, _ = train(lite_config(scene, folder / "outputs"))
    return Run(config, scene, losses)


def loaded(run: Run, test_mode="test"):
    from nerfstudio.utils.eval_utils import eval_setup

    return eval_setup(run.config, test_mode=test_mode)[1]


def test_training_names_the_run_after_the_clip_and_learns(run):
    assert run.config.parts[-4:-2] == ("walk", "das3r-lite")
    assert len(run.last_losses) == STEPS
    assert all(np.isfinite(run.last_losses))
    assert np.mean(run.last_losses[-8:]) < np.mean(run.last_losses[:4])


def test_the_checkpoint_holds_tensors_and_plain_numbers_only(run):
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    model = checkpoint["pipeline"]
    count = len(model["_model.gauss_params.means"])
    assert model["_model.gauss_params.staticness"].shape == (count, 1)
    assert len(checkpoint["optimizers"]["staticness"]["state"][0]["exp_avg"]) == count
    assert any(float(value.abs().max()) > 0 for key, value in model.items() if "corrections" in key)


def test_loading_restores_every_value_and_the_step(run):
    pipeline = loaded(run)
    saved = torch.load(run.checkpoint, weights_only=True)
    state = pipeline.state_dict()
    assert set(state) == set(saved["pipeline"])
    for key, value in saved["pipeline"].items():
        torch.testing.assert_close(state[key], value, msg=key)
    assert pipeline.model.step == saved["step"] == STEPS - 1


def test_ns_eval_reports_named_metrics(run, tmp_path):
    from nerfstudio.scripts.eval import ComputePSNR

    ComputePSNR(load_config=run.config, output_path=tmp_path / "metrics.json").main()
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert {"psnr", "ssim", "static_psnr", "static_ssim", "paper_psnr"} <= set(results)
    assert results["static_psnr"] > 12
    assert results["paper_psnr"] > results["static_psnr"]


def test_ns_render_dataset_writes_every_output(run, tmp_path):
    from nerfstudio.scripts.render import DatasetRender

    names = ["rgb", "depth", "accumulation", "staticness", "unseen", "raw-depth", "gt-rgb"]
    DatasetRender(
        load_config=run.config, output_path=tmp_path, split="train", rendered_output_names=names, image_format="png"
    ).main()
    for name in names:
        assert len(list((tmp_path / "train" / name).iterdir())) == 8, name
    with gzip.open(next((tmp_path / "train" / "raw-depth").iterdir())) as file:
        depth = np.load(file)
    assert np.isfinite(depth).all()
    assert 0.3 < np.median(depth) < 3


def test_ns_render_interpolates_refined_cameras(run, tmp_path, monkeypatch):
    from nerfstudio.scripts import render

    paths = []
    original = render.get_interpolated_camera_path
    monkeypatch.setattr(render, "get_interpolated_camera_path", lambda **kw: paths.append(original(**kw)) or paths[-1])
    render.RenderInterpolated(
        load_config=run.config, output_path=tmp_path / "path.mp4", interpolation_steps=2, rendered_output_names=["rgb"]
    ).main()
    assert (tmp_path / "path.mp4").stat().st_size > 0
    refined = torch.cat([loaded(run).model.camera_optimizer.refined(i) for i in range(8)]).detach()
    first = paths[0].camera_to_worlds[0]
    torch.testing.assert_close(first[:, 3], refined[0, :, 3], atol=1e-5, rtol=0)
    given = torch.load(run.checkpoint, weights_only=True)["pipeline"]["_model.camera_optimizer.camera_to_worlds"]
    assert (first[:, 3] - given[0, :, 3]).norm() > 1e-5


def test_ns_render_follows_a_camera_path(run, tmp_path):
    from nerfstudio.scripts.render import RenderCameraPath

    camera = {"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 60, "aspect": 64 / 48}
    path = {
        "render_height": 48, "render_width": 64, "seconds": 0.1, "fps": 20, "camera_type": "perspective",
        "camera_path": [camera, camera],
    }  # fmt: skip
    (tmp_path / "path.json").write_text(json.dumps(path))
    RenderCameraPath(
        load_config=run.config, camera_path_filename=tmp_path / "path.json", output_path=tmp_path / "path.mp4"
    ).main()
    assert (tmp_path / "path.mp4").stat().st_size > 0


def test_ns_export_cameras_writes_the_refined_ones(run, tmp_path):
    from nerfstudio.scripts.exporter import ExportCameraPoses

    ExportCameraPoses(load_config=run.config, output_dir=tmp_path).main()
    model = loaded(run).model
    refined = torch.cat([model.camera_optimizer.refined(i) for i in range(8)]).detach()
    for name in ("transforms_train.json", "transforms_eval.json"):
        frames = json.loads((tmp_path / name).read_text())
        written = torch.tensor([frame["transform"] for frame in frames])
        torch.testing.assert_close(written, refined, atol=1e-5, rtol=0)


def test_ns_export_folds_staticness_into_the_opacity_of_the_ply(run, tmp_path):
    from nerfstudio.scripts.exporter import ExportGaussianSplat

    ExportGaussianSplat(load_config=run.config, output_dir=tmp_path).main()
    rows = PlyData.read(str(tmp_path / "splat.ply"))["vertex"].data
    values = np.stack([rows[name] for name in rows.dtype.names], axis=-1)
    assert np.isfinite(values).all()
    assert {f"f_rest_{i}" for i in range(45)} <= set(rows.dtype.names)
    model = loaded(run).model
    staticness = model.gaussian_staticness.detach()
    opacity = torch.sigmoid(model.gauss_params["opacities"].detach()[:, 0]) * staticness
    kept = (staticness >= model.config.cull_staticness) & (opacity > 1 / 255)
    assert len(rows) == int(kept.sum())
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["opacity"])), opacity[kept], atol=1e-4)
    np.testing.assert_allclose(rows["x"], model.means.detach()[kept, 0], atol=1e-6)


def test_a_training_ends_with_its_report(run, tmp_path, capsys):
    from das3r_ns.report.command import report

    config = lite_config(run.scene, tmp_path)
    config.report, config.max_num_iterations = True, 2
    path = train(config)[0].parent / "report.html"
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    html = path.read_text(encoding="utf-8")
    assert "2 steps" in html
    assert "<td>Training</td>" in html
    again = report(run.config.parent, tmp_path / "again.html").read_text(encoding="utf-8")
    assert f"{STEPS} steps" in again
    assert again.count("data:image/jpeg") == 12


def test_every_export_takes_the_cut_that_the_viewer_left(run, tmp_path, monkeypatch):
    from nerfstudio.scripts import exporter

    from das3r_ns.model.state import Das3rState
    from das3r_ns.runs.host import eval_setup
    from das3r_ns.runs.staticness_cut import store_cut

    monkeypatch.setattr(exporter, "eval_setup", eval_setup)  # as in the command, whose process begins with it
    monkeypatch.setattr(Das3rState, "gaussian_staticness", property(lambda m: torch.linspace(0, 1, m.num_points)))
    counts = []
    try:
        for cut in (0.5, 0.9):
            store_cut(run.config.parent, cut)
            exporter.ExportGaussianSplat(load_config=run.config, output_dir=tmp_path).main()
            counts.append(len(PlyData.read(str(tmp_path / "splat.ply"))["vertex"].data))
    finally:
        store_cut(run.config.parent, None)
    assert counts[1] == pytest.approx(0.2 * counts[0], rel=0.1)
    assert loaded(run).model.cull_staticness == 0.5


def test_our_export_can_keep_what_is_dynamic(run, tmp_path, monkeypatch):
    from das3r_ns.model.state import Das3rState
    from das3r_ns.render.splat import export_splat

    # Half of the Gaussians count as moving.
    half = property(lambda model: torch.linspace(0.2, 0.8, model.num_points))
    monkeypatch.setattr(Das3rState, "gaussian_staticness", half)
    counts = {}
    for keep in (False, True):
        out = export_splat(run.config, tmp_path / f"{keep}.ply", keep_dynamic=keep)
        counts[keep] = len(PlyData.read(str(out))["vertex"].data)
    assert counts[False] < 0.6 * counts[True]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_ns_viewer_answers_on_its_port(run, monkeypatch):
    from nerfstudio.scripts.viewer import run_viewer

    port, stop, states = free_port(), threading.Event(), []

    class Stopped(Exception):
        pass

    def sleep(seconds):
        if stop.is_set():
            raise Stopped
        time.sleep(seconds)

    make_state = run_viewer.ViewerState
    monkeypatch.setattr(run_viewer, "time", types.SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(run_viewer, "ViewerState", lambda *a, **kw: states.append(make_state(*a, **kw)) or states[-1])
    viewer = run_viewer.RunViewer(load_config=run.config)
    viewer.viewer.websocket_port = port

    def serve():
        with pytest.raises(Stopped):
            viewer.main()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        assert _answers(port, thread)
        while not states:  # the server answers before the state around it is whole
            time.sleep(0.05)
        pipeline = states[0].pipeline
        outputs = pipeline.model.get_outputs_for_camera(pipeline.datamanager.train_dataset.cameras[:1])
        assert "staticness" in outputs
    finally:
        stop.set()
        thread.join(10)
        if states:
            states[0].viser_server.stop()


def _answers(port: int, thread: threading.Thread) -> bool:
    for _ in range(600):
        assert thread.is_alive()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            time.sleep(0.1)
    return False


def test_training_resumes_at_the_same_loss_with_its_optimizers(run, tmp_path):
    again = lite_config(run.scene, tmp_path)
    again.load_dir, again.max_num_iterations = run.checkpoint.parent, 4
    config, losses, trainer = train(again)
    assert len(losses) == 4
    assert np.mean(losses) < 1.15 * np.mean(run.last_losses[-4:])
    assert trainer._start_step == STEPS
    model, optimizers = trainer.pipeline.model, trainer.optimizers.optimizers
    for name, parameter in model.gauss_params.items():
        (held,) = optimizers[name].param_groups[0]["params"]
        assert held is parameter, name
        assert float(optimizers[name].state[parameter]["step"]) > STEPS, name
    saved = torch.load(next((config.parent / "nerfstudio_models").glob("*.ckpt")), weights_only=True)
    before = torch.load(run.checkpoint, weights_only=True)["pipeline"]
    assert saved["step"] == STEPS + 3
    key = "_model.maps.maps.0"
    assert float((saved["pipeline"][key] - before[key]).abs().mean()) < 1.0


def test_a_checkpoint_of_another_clip_is_refused_with_a_reason(run):
    pipeline = loaded(run)
    state = dict(torch.load(run.checkpoint, weights_only=True)["pipeline"])
    state["_model.camera_optimizer.camera_to_worlds"] = torch.zeros(5, 3, 4)
    with pytest.raises(ValueError, match="trained on other data"):
        pipeline.load_pipeline(state, 0)
    del state["_model.gauss_params.staticness"]
    with pytest.raises(ValueError, match="another method"):
        pipeline.load_pipeline(state, 0)


def test_a_camera_that_stays_where_it_is_is_exposed_like_its_frame_all_the_same(run):
    pipeline = loaded(run)
    model, dataset = pipeline.model, pipeline.datamanager.train_dataset
    camera = dataset.cameras[:1]
    place = camera.metadata["frame_index"]
    with torch.no_grad():
        for frame in model.exposure.frames:
            frame[1] = 0.25  # an offset of a quarter
        plain = model.get_outputs_for_camera(replace(camera, metadata={}))["rgb"]
        exposed = model.get_outputs_for_camera(replace(camera, metadata={"exposure_index": place}))["rgb"]
    inside = (plain > 0.02) & (plain < 0.5)
    assert inside.any()
    assert (exposed - plain)[inside].median() > 0.2
    assert _where_it_stands(camera).metadata.keys() == {"exposure_index", "camera_motion"}


def test_frames_of_the_clip_are_blurred_as_filmed_and_nothing_else_is(run):
    pipeline = loaded(run)
    model, dataset = pipeline.model, pipeline.datamanager.train_dataset
    camera = dataset.cameras[3:4]
    with torch.no_grad():
        model.shutter.open.fill_(0.0)
        model.shutter.readout.zero_()
        still = model.get_outputs_for_camera(camera)["rgb"]
        model.shutter.open.fill_(0.9)
        without_blur = model.get_outputs_for_camera(sharp(camera))["rgb"]
        filmed = model.get_outputs_for_camera(camera)["rgb"]
        motion = model.shutter.motion[3]
        by_hand = blurred(still, model.shutter.open, model.shutter.readout, motion)
    torch.testing.assert_close(without_blur, still, atol=1e-5, rtol=0)
    assert (filmed - still).abs().mean() > 1e-3
    # The motion of the training frames is from the predictor's depth, that of renders from their own.
    assert (filmed - by_hand).abs().median() < 0.2 * (filmed - still).abs().median()


def test_the_shutter_is_saved_and_restored(run):
    state = torch.load(run.checkpoint, weights_only=True)["pipeline"]
    assert state["_model.shutter.open"] != START
    shutter = loaded(run).model.shutter
    assert (shutter.open, shutter.readout.tolist()) == (
        state["_model.shutter.open"],
        state["_model.shutter.readout"].tolist(),
    )
