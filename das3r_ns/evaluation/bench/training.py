"""Train one method on one scene folder, with the protocol's test frames held out; in this process, so that its memory
can be measured."""

import shutil
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

BASELINES = ("splatfacto", "splatfacto-masked")
"""nerfstudio's own method without masks, and with the predicted ones."""

RUN = "run"
"""Stands where nerfstudio puts a time: a benchmark has one run of each method."""


def train(method: str, scene: Path, out: Path, steps: int | None = None) -> Path:
    """Train, and return the run's config.yml. A run that is there already makes room: it may be of another scene or of
    other settings, and its checkpoint must not be taken for the new one's.

    Args:
        steps: instead of the method's own number.
    Raises:
        ValueError: there is no such method, or it cannot run on this machine.
    """
    config = method_config(method, scene, out, steps)
    folder = config.get_base_dir()
    if folder.exists():
        shutil.rmtree(folder)
    from nerfstudio.scripts.train import train_loop

    config.save_config()
    train_loop(local_rank=0, world_size=1, config=config)
    return folder / "config.yml"


def method_config(method: str, scene: Path, out: Path, steps: int | None = None) -> Any:
    """nerfstudio's config of a method, set to train on a scene folder with the protocol's test frames held out.

    Raises:
        ValueError: there is no such method, or it cannot run on this machine.
    """
    from nerfstudio.configs.method_configs import all_methods

    from das3r_ns.dataparser.parser import Das3rDataParserConfig
    from das3r_ns.pipeline import Das3rRunConfig

    name = "splatfacto" if method in BASELINES else method
    if name not in all_methods:
        raise ValueError(
            f"there is no method {method!r}. Give one of nerfstudio's (das3r, das3r-paper, das3r-lite, ...) or of the "
            f"baselines {', '.join(BASELINES)}."
        )
    config = deepcopy(all_methods[name])
    if method in BASELINES:
        if not torch.cuda.is_available():
            raise ValueError(f"{method} is nerfstudio's splatfacto, which needs a CUDA device.")
        as_baseline(config, masked=method == "splatfacto-masked")
        if steps is not None:
            shorten(config, steps)
    dataparser = config.pipeline.datamanager.dataparser
    if not isinstance(dataparser, Das3rDataParserConfig):
        dataparser = Das3rDataParserConfig()
    config.pipeline.datamanager.dataparser = replace(dataparser, data=scene, eval_mode="paper")
    config.pipeline.datamanager.data = scene
    config.output_dir, config.experiment_name, config.timestamp = out, method, RUN
    config.vis = "tensorboard"
    if isinstance(config, Das3rRunConfig):
        config.report = False
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
    if steps is not None:
        config.max_num_iterations = steps
        if isinstance(config, Das3rRunConfig) and config.budget is not None:
            config.budget = steps  # schedules follow, as those of the baselines do
    return config


def as_baseline(config: Any, masked: bool) -> None:
    """Turn nerfstudio's config of splatfacto into that of a baseline, in place."""
    from das3r_ns.dataparser.parser import Das3rDataParserConfig
    from das3r_ns.evaluation.bench.baselines import SplatfactoBaselineConfig, UnmaskedDataParserConfig

    model = config.pipeline.model
    values = {f.name: getattr(model, f.name) for f in fields(model) if f.name != "_target"}
    config.pipeline.model = SplatfactoBaselineConfig(**values)
    config.pipeline.datamanager.dataparser = Das3rDataParserConfig() if masked else UnmaskedDataParserConfig()


def shorten(config: Any, steps: int) -> None:
    """Bring every schedule of splatfacto, made for `config.max_num_iterations`, to another number of steps."""
    share = steps / config.max_num_iterations
    model = config.pipeline.model
    for name in ("resolution_schedule", "sh_degree_interval", "stop_split_at", "stop_screen_size_at", "warmup_length"):
        setattr(model, name, max(1, round(share * getattr(model, name))))
    # In units of `refine_every`. Gaussians need a few hundred steps between resets to become opaque again.
    model.reset_alpha_every = max(5, round(share * model.reset_alpha_every))
    for group in config.optimizers.values():
        if group["scheduler"] is not None:
            group["scheduler"].max_steps = max(1, round(share * group["scheduler"].max_steps))
