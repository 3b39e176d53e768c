"""Load a finished run: the one beside the given `config.yml`, with its newest whole checkpoint, on the scene it was
trained on.

Nerfstudio goes by what the config says: a run that was moved or renamed is looked for where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.dataparser.trainer import Das3rTrainerConfig
from das3r_ns.model.config import Das3rModelConfig
from das3r_ns.runs.checkpoints import CheckpointError, checkpoint_path, checkpoint_steps, read_newest
from das3r_ns.runs.config_file import RunError, read_config
from das3r_ns.runs.scene_of_run import find_scene, use_scene
from das3r_ns.runs.staticness_cut import stored_cut, use_cut

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

TestMode = Literal["test", "val", "inference"]


@dataclass(frozen=True)
class LoadedRun:
    """A run with a checkpoint loaded, in evaluation mode."""

    config_path: Path
    config: TrainerConfig
    pipeline: Any
    checkpoint: Path
    step: int
    """Of the checkpoint, counted from 0."""


def read_run_config(config_path: Path) -> TrainerConfig:
    """Config of a run, its checkpoints those beside `config_path`, its data the scene it was trained on.

    Raises:
        RunError: there is no such file, or it is not the config of a run.
    """
    config_path = Path(config_path)
    config = read_config(config_path)
    folder = config_path.parent.absolute()
    recorded = config.get_checkpoint_dir().absolute()
    beside = folder / config.relative_model_dir
    if not checkpoint_steps(beside) and checkpoint_steps(recorded):
        CONSOLE.print(f"No checkpoints lie beside {config_path}; taking those in {recorded}.", soft_wrap=True)
        beside, folder = recorded, recorded.parent
    config.relative_model_dir = beside
    if isinstance(config, Das3rTrainerConfig):
        config.loaded_from = config_path.parent.absolute()  # type: ignore[misc]
    _settle_data(config, folder)
    return config


def load_run(
    config_path: Path,
    test_mode: TestMode = "test",
    allow_unfinished: bool = True,
    change: Callable[[TrainerConfig], TrainerConfig] | None = None,
) -> LoadedRun:
    """Load a run's newest checkpoint that can be read; says which newer ones it skipped.

    Args:
        allow_unfinished: take a run that stopped before its last step as it is.
        change: applied to the config before anything is built from it.

    Raises:
        RunError: there is no such run, nothing of it can be read, it holds code, or it did not finish.
    """
    config_path = Path(config_path)
    config = read_run_config(config_path)
    cut = stored_cut(config_path.parent) if isinstance(config.pipeline.model, Das3rModelConfig) else None
    if change is not None:
        config = change(config)
    folder = config.get_checkpoint_dir()
    again = f"Resume it (ns-train {config.method_name} --load-dir {folder} ...) or train again."
    try:
        step, state, skipped = read_newest(folder)
    except CheckpointError as error:
        raise CheckpointError(f"the run of {config_path} cannot be loaded: {error} {again}") from error
    for reason in skipped:
        CONSOLE.print(f"Skipped: {reason}", style="yellow", soft_wrap=True)
    if skipped:
        CONSOLE.print(f"Using the checkpoint before it, of step {step + 1}.", style="yellow")
    if step + 1 < config.max_num_iterations and not allow_unfinished:
        raise RunError(
            f"the run of {config_path} stopped at step {step + 1} of {config.max_num_iterations} and never finished. "
            f"{again} --allow-unfinished evaluates it as it is."
        )
    # The data manager of a method is what is installed, as nerfstudio's own loading has it.
    config.pipeline.datamanager._target = all_methods[str(config.method_name)].pipeline.datamanager._target
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = config.pipeline.setup(device=device, test_mode=test_mode)
    pipeline.eval()
    if hasattr(pipeline, "run_folder"):
        pipeline.run_folder = config_path.parent.absolute()
    path = checkpoint_path(folder, step)
    try:
        pipeline.load_pipeline(state["pipeline"], state["step"])
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not fit the run of {config_path}: {error}") from error
    use_cut(pipeline.model, cut, config_path.parent)
    return LoadedRun(config_path, config, pipeline, path, step)


def _settle_data(config: Any, folder: Path) -> None:
    dataparser = getattr(config.pipeline.datamanager, "dataparser", None)  # other methods may have none
    if not isinstance(dataparser, Das3rDataParserConfig):
        return
    given = config.pipeline.datamanager.data or dataparser.data
    dataparser.data = Path(given)
    scene = find_scene(folder, dataparser)
    if scene is None:
        if dataparser.data.exists():
            CONSOLE.print(
                f"The scene that the run in {folder} was trained on was found neither beside it nor in a cache; it is "
                f"predicted again from {dataparser.data}.",
                soft_wrap=True,
            )
        return
    CONSOLE.print(f"Scene of the run: {scene}", soft_wrap=True, highlight=False)
    use_scene(dataparser, scene)
    config.pipeline.datamanager.data = scene
