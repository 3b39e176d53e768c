"""Input that is odd or broken, callers on several threads, other processes, and what gsplat's strategies read."""

import inspect
import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat.strategy import DefaultStrategy
from raster_reference import random_scene

from das3r_ns.model.rasterizer import rasterize, warm_up
from das3r_ns.model.rasterizer.jit import in_blocks

SIZE = {"width": 50, "height": 37}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def scene_of(count=400, dtype=torch.float32, **options):
    return random_scene(count, SIZE["width"], SIZE["height"], dtype=dtype, **options)


def everything(scene, **options):
    """Image, alpha and all gradients for fixed incoming gradients."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in scene.items()}
    image, alpha, info = rasterize(**leaves, **SIZE, sh_degree=3, render_mode="RGB+ED", **options)
    g = torch.Generator().manual_seed(2)
    torch.autograd.backward(
        [image, alpha], [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in (image, alpha)]
    )
    return [image.detach(), alpha.detach(), info["means2d"].grad, *(leaf.grad for leaf in leaves.values())]


def test_results_do_not_depend_on_the_number_of_threads(two_threads):
    scene = scene_of(6000, cameras=2)  # several blocks of Gaussians and of tiles
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(everything(scene))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_several_threads_may_render_and_differentiate_at_once(two_threads):
    scenes = [scene_of(3000, seed=seed) for seed in range(4)]
    expected = [everything(scene) for scene in scenes]
    failures = []

    def work(i):
        try:
            for _ in range(5):
                for a, b in zip(everything(scenes[i]), expected[i]):
                    assert torch.equal(a, b)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures


def test_a_task_that_fails_says_so_and_the_next_call_works(two_threads):
    def fail(start, stop):
        if start == 30:
            raise ValueError("block 30")

    with pytest.raises(ValueError, match="block 30"):
        in_blocks(fail, 100, 10)
    done = np.zeros(100)
    in_blocks(lambda start, stop: done[start:stop].__iadd__(1), 100, 10)
    assert (done == 1).all()


def _meet(count=2):
    """Each of `count` tasks waits for the others, so this returns only if they run at the same time."""
    torch.set_num_threads(count)
    barrier = threading.Barrier(count, timeout=30)
    in_blocks(lambda start, stop: barrier.wait(), count, 1)


def _meet_in_child(queue):
    _meet()
    queue.put("met")


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_tasks_run_side_by_side_also_in_a_forked_process(two_threads):
    _meet()
    _meet(3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_meet_in_child, args=(queue,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert queue.get(timeout=5) == "met"


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "extra"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_broken_gaussian_is_left_out_and_harms_nobody(name, value, mode):
    scene = scene_of(60)
    broken = {key: tensor.clone() for key, tensor in scene.items()}
    broken[name].view(60, -1)[40, 0] = value
    without = {key: tensor if len(tensor) != 60 else tensor[torch.arange(60) != 40] for key, tensor in scene.items()}
    results, expected = everything(broken, rasterize_mode=mode), everything(without, rasterize_mode=mode)
    for got, wanted in zip(results, expected):
        assert got.isfinite().all()
        if got.shape[:1] == (60,):
            assert (got[40] == 0).all()
            got = got[torch.arange(60) != 40]
        elif got.shape[:2] == (1, 60):
            got = got[:, torch.arange(60) != 40]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_degenerate_gaussians_give_finite_results(mode):
    scene = scene_of(8)
    scene["quats"][0] = 0.0
    scene["scales"][1] = 0.0
    scene["scales"][2] = 1e18
    scene["scales"][3] = torch.tensor([1e4, 1e-9, 1e-9])
    scene["opacities"][4] = 0.0
    scene["opacities"][5] = -1.0
    scene["opacities"][6] = 40.0
    scene["means"][7] = torch.linalg.inv(scene["viewmats"][0])[:3, 3]  # in the camera's centre
    assert all(t.isfinite().all() for t in everything(scene, rasterize_mode=mode))
    assert all(t.isfinite().all() for t in everything(scene, rasterize_mode=mode, near_plane=0.0))


def test_strided_input_gives_the_same_as_contiguous():
    scene = scene_of(100)
    strided = {
        name: torch.stack([value, value], dim=-1).movedim(-1, 0)[1] for name, value in scene.items() if name != "Ks"
    }
    assert not strided["colors"].is_contiguous()
    a = rasterize(**scene, **SIZE, sh_degree=3)[0]
    b = rasterize(**strided, Ks=scene["Ks"], **SIZE, sh_degree=3)[0]
    assert torch.equal(a, b)


def test_nothing_is_recorded_without_gradients():
    scene = scene_of(50)
    image, _, info = rasterize(**scene, **SIZE, sh_degree=3)
    assert not image.requires_grad
    assert not info["means2d"].requires_grad
    scene["means"].requires_grad_()
    with torch.no_grad():
        assert torch.equal(rasterize(**scene, **SIZE, sh_degree=3)[0], image)
    with torch.inference_mode():
        warm_up()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types_of_the_output(dtype):
    scene = scene_of(30, dtype=dtype, cameras=2)
    for mode, channels in (("RGB", 5), ("D", 3), ("ED", 3), ("RGB+D", 6), ("RGB+ED", 6)):
        image, alpha, info = rasterize(**scene, **SIZE, sh_degree=2, render_mode=mode)
        assert image.shape == (2, 37, 50, channels)
        assert alpha.shape == (2, 37, 50, 1)
        assert image.dtype == alpha.dtype == info["means2d"].dtype == dtype
    assert info["radii"].dtype == torch.int32
    assert info["radii"].shape == info["depths"].shape == info["opacities"].shape == (2, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sh_degree": 4}, "sh_degree 4 needs 25 coefficients"),
        ({"colors": torch.zeros(30, 25, 3), "sh_degree": 4}, "goes up to 3"),
        ({"scales": torch.ones(29, 3)}, r"scales has shape \(29, 3\)"),
        ({"opacities": torch.ones(30, dtype=torch.float64)}, r"opacities\.to\(means\)"),
        ({"backgrounds": torch.zeros(1, 4)}, r"backgrounds has shape \(1, 4\)"),
        ({"packed": True}, "packed=False"),
        ({"width": 0}, "0 x 37 pixels"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_a_reason(change, message):
    arguments = {**scene_of(30), **SIZE, "sh_degree": 3, **change}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(rasterize)(**arguments)  # without the shape checks of the tests, as users call it


def test_absolute_gradients_are_summed_only_when_asked_for():
    scene = scene_of(20)
    means = scene["means"].clone().requires_grad_()
    for asked in ({}, {"absgrad": True}):
        image, _, info = rasterize(**{**scene, "means": means}, **SIZE, sh_degree=3, **asked)
        image.sum().backward()
        assert hasattr(info["means2d"], "absgrad") == bool(asked)


@pytest.mark.parametrize("absgrad", [False, True])
def test_gsplats_default_strategy_runs_on_the_info(absgrad):
    scene = scene_of(200)
    values = {name: scene[name] for name in ("means", "quats", "scales", "opacities", "colors")}
    values["scales"] = values["scales"].log()
    values["opacities"] = values["opacities"].clamp(0.01, 0.99).logit()
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in values.items()})
    optimizers = {name: torch.optim.Adam([parameter], lr=1e-3) for name, parameter in params.items()}
    strategy = DefaultStrategy(refine_start_iter=0, refine_every=2, grow_grad2d=1e-4, absgrad=absgrad)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(1, 4):
        image, _, info = rasterize(
            params["means"],
            params["quats"],
            params["scales"].exp(),
            params["opacities"].sigmoid(),
            params["colors"],
            scene["viewmats"],
            scene["Ks"],
            **SIZE,
            sh_degree=3,
            absgrad=absgrad,
        )
        strategy.step_pre_backward(params, optimizers, state, step, info)
        image.square().mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    assert len(params["means"]) > 200  # it has grown


def test_the_benchmark_runs():
    script = Path(__file__).parents[2] / "benchmarks" / "rasterizer.py"
    options = ["--size", "48", "32", "--gaussians", "300", "--seconds", "0.05", "--threads", "1"]
    result = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "passes/s" in result.stdout
    assert "compositing backward" in result.stdout
