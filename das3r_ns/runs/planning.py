"""The plan of a run: measures the clip, and puts the plan into the run's settings where the user set nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.dataparser.cache import cached_scene
from das3r_ns.dataparser.outputs import shown_scene, split_frames
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.dataparser.seed_points import distinct_surface
from das3r_ns.files.json_files import write_json
from das3r_ns.runs.config_file import RunError, read_config
from das3r_ns.runs.plan import ClipMeasures, MethodSteps, TrainingPlan, make_plan
from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene, read_scene

if TYPE_CHECKING:
    from das3r_ns.pipeline import Das3rRunConfig

RECORD = "plan.json"
"""In a run's folder: the plan of its training."""
GAUSSIAN_GROUPS = ("means", "features_dc", "features_rest", "opacities", "scales", "quats")
"""Optimizers whose learning rates fall as trainings get longer. The others learn a few values a frame, and each
frame's turn comes as often as before."""
MODEL_STEPS = ("resolution_schedule", "sh_degree_interval", "warmup_length", "stop_split_at", "depth_until")
"""Settings of the model that are step numbers."""
SCHEDULER_STEPS = ("max_steps", "start_step", "hold_until")
"""Settings of a schedule of learning rates that are step numbers."""
MAX_MEASURED_FRAMES = 60
"""Frames whose surface is looked at, spread over the clip."""


def plan_run(config: Das3rRunConfig, run: Path) -> TrainingPlan | None:
    """Plan a training and put the plan into `config`: see `Das3rRunConfig.budget`. Predicts the scene if need be.

    What the user set himself stays: what differs from the method's own setting, or is named on the command line.

    Args:
        run: the run's folder, where the plan is recorded.

    Returns:
        None where nothing is planned: no budget, data of another kind, or a run that goes on with the plan it has.

    Raises:
        ValueError: the budget makes no sense.
        as `cached_scene`.
    """
    dataparser = config.pipeline.datamanager.dataparser
    if config.budget is None or not isinstance(dataparser, Das3rDataParserConfig):
        return None
    own, given = own_settings(config), _Given(config)
    if (earlier := _resumed(config)) is not None and not given("budget"):
        _take_over(config, earlier, given)
        return None
    data = config.pipeline.datamanager.data or dataparser.data
    scene = read_scene(cached_scene(data, dataparser, dataparser.cache_dir))
    train = split_frames(len(scene), "train", dataparser.eval_mode, dataparser.eval_interval)
    on_gpu = config.machine.device_type == "cuda"
    model = config.pipeline.model
    plan = make_plan(
        measure_clip(scene, train),
        config.max_num_iterations if given("max_num_iterations") else config.budget,
        own,
        on_gpu=on_gpu,
        max_gaussians=model.max_gaussians if given("pipeline.model.max_gaussians") else None,
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if on_gpu else None,
    )
    apply_plan(config, plan, given)
    CONSOLE.print(plan.line(), soft_wrap=True)
    write_json(run / RECORD, plan)
    return plan


def own_settings(config: Das3rRunConfig) -> MethodSteps:
    """What the method's settings are before anything is planned."""
    method = method_defaults(config)
    return MethodSteps(
        steps=method.max_num_iterations,
        max_gaussians=method.pipeline.model.max_gaussians,
        max_points=method.pipeline.datamanager.dataparser.max_points or 0,
        refine_every=method.pipeline.model.refine_every,
        steps_per_save=method.steps_per_save,
    )


def method_defaults(config: Das3rRunConfig) -> Any:
    """The settings of the method as it is registered; those of `config` itself if it is not."""
    from nerfstudio.configs.method_configs import all_methods

    return all_methods.get(config.method_name, config)


class _Given:
    """Whether the user set a value himself."""

    def __init__(self, config: Das3rRunConfig) -> None:
        self._config, self._default = config, method_defaults(config)
        words = sys.argv[1:] if config.method_name in sys.argv[1:] else []  # else it is another program's
        self._named = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}

    def __call__(self, name: str) -> bool:
        """
        Args:
            name: dotted, from the top of the settings; keys of dicts like fields.
        """
        short = name.removeprefix("pipeline.datamanager.dataparser.")  # as options after `das3r-data` are named
        return bool({name, short} & self._named) or _value(self._config, name) != _value(self._default, name)


def apply_plan(config: Das3rRunConfig, plan: TrainingPlan, given: Callable[[str], bool]) -> None:
    """Put a plan into settings, in place; objects that other settings may share are replaced.

    Args:
        given: tells by its dotted name whether the user set a value.
    """
    default, stretch = method_defaults(config), plan.stretch
    config.pipeline, config.optimizers = deepcopy(config.pipeline), deepcopy(config.optimizers)

    def put(name: str, value: Any) -> None:
        if not given(name):
            _set(config, name, value)

    config.max_num_iterations = plan.steps
    put("steps_per_save", plan.steps_per_save)
    for name in ("steps_per_eval_image", "steps_per_eval_all_images"):
        put(name, _stretched(_value(default, name), max(stretch, 1.0)))
    put("pipeline.model.max_gaussians", plan.max_gaussians)
    put("pipeline.model.refine_every", plan.refine_every)
    for name in MODEL_STEPS:
        put(f"pipeline.model.{name}", _stretched(getattr(default.pipeline.model, name), stretch))
    put("pipeline.datamanager.dataparser.max_points", plan.max_points)
    for name, group in default.optimizers.items():
        rate = plan.learning_rate if name in GAUSSIAN_GROUPS else 1.0
        put(f"optimizers.{name}.optimizer.lr", group["optimizer"].lr * rate)
        if (scheduler := group["scheduler"]) is None:
            continue
        put(f"optimizers.{name}.scheduler.lr_final", scheduler.lr_final * rate)
        for step in SCHEDULER_STEPS:
            put(f"optimizers.{name}.scheduler.{step}", _stretched(getattr(scheduler, step), stretch))


def _stretched(step: int, stretch: float) -> int:
    return step if step == 0 else max(1, round(step * stretch))


def _value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else getattr(settings, part, None)
    return settings


def _set(settings: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    setattr(_value(settings, ".".join(path)) if path else settings, last, value)


def _resumed(config: Das3rRunConfig) -> Any:
    """Settings of the run that this one goes on with, with its plan, or from before there were plans."""
    checkpoints = config.load_dir or (config.load_checkpoint.parent if config.load_checkpoint is not None else None)
    if checkpoints is None:
        return None
    try:
        earlier = read_config(checkpoints.parent / "config.yml")
    except RunError:
        return None  # a checkpoint alone: the clip decides, as in a new run
    return earlier if earlier.method_name == config.method_name else None


def _take_over(config: Das3rRunConfig, earlier: Any, given: Callable[[str], bool]) -> None:
    """Go on with the schedule that a run began with."""
    config.pipeline, config.optimizers = deepcopy(config.pipeline), deepcopy(config.optimizers)
    names = ["budget", "max_num_iterations", "steps_per_save", "steps_per_eval_image", "steps_per_eval_all_images"]
    names += [f"pipeline.model.{name}" for name in (*MODEL_STEPS, "max_gaussians", "refine_every")]
    names += ["pipeline.datamanager.dataparser.max_points"]
    for group, parts in earlier.optimizers.items():
        if group in config.optimizers:
            names.append(f"optimizers.{group}.optimizer.lr")
            if parts["scheduler"] is not None and config.optimizers[group]["scheduler"] is not None:
                names += [f"optimizers.{group}.scheduler.{name}" for name in ("lr_final", *SCHEDULER_STEPS)]
    for name in names:
        if not given(name):
            _set(config, name, _value(earlier, name))


def measure_clip(scene: Scene, train: list[int]) -> ClipMeasures:
    """What a plan depends on, of the training frames of a scene.

    Args:
        train: numbers of the training frames.
    """
    scene, _, _ = shown_scene(scene)
    height, width = scene.image_size
    every = max(1, -(-len(train) // MAX_MEASURED_FRAMES))
    chosen = train[::every]
    centres = scene.T_world_camera[train, :3, 3]
    path = float((centres[1:] - centres[:-1]).norm(dim=-1).sum())
    depth = scene.depth[chosen]
    static = (depth > 0) & (scene.dynamic_prob[chosen] <= DYNAMIC_THRESHOLD)
    known = depth[static] if static.any() else (scene.points.xyz - scene.T_world_camera[0, :3, 3]).norm(dim=1)
    path_over_depth = path / max(float(known.median()), 1e-9) if len(known) else 0.0
    # Without depth only the path tells how much is seen: one image, and another for each depth walked.
    surface = distinct_surface(scene, chosen) if static.any() else 1.0 + path_over_depth
    return ClipMeasures(len(train), height * width, path_over_depth, max(surface, 1.0))
