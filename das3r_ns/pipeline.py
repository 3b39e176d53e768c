"""Pipeline and trainer: nerfstudio's own, with what refined cameras and a CPU need.

Class paths of this file stand in every `config.yml`: names here are permanent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.misc import step_check
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from das3r_ns.datamanager import Das3rDatamanagerConfig
from das3r_ns.dataparser.trainer import Das3rTrainerConfig, check_device
from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.machine.checks import prepare_kernels
from das3r_ns.model.das3r import Das3rModel
from das3r_ns.model.rasterizer import draws_on_cpu
from das3r_ns.report.command import FILE as REPORT
from das3r_ns.report.command import write_report
from das3r_ns.runs.live_edits import LiveEdits
from das3r_ns.runs.plan import BudgetName, check_budget
from das3r_ns.runs.planning import RECORD as PLAN
from das3r_ns.runs.planning import plan_run
from das3r_ns.runs.trainer import WholeRunTrainer
from das3r_ns.runtime.failures import ended_by_ctrl_c, program_name, sentence_of
from das3r_ns.video.ffmpeg import provide_ffmpeg
from das3r_ns.viewer.panel import ClipPanel


@dataclass
class Das3rPipelineConfig(SavedConfig, VanillaPipelineConfig):
    """Pipeline that tells the model where the training cameras stand, and shows refined cameras after training."""

    _target: type = field(default_factory=lambda: Das3rPipeline)


class Das3rPipeline(VanillaPipeline):
    """A `VanillaPipeline` whose model knows its cameras."""

    model: Das3rModel  # type: ignore[assignment]
    run_folder: Path | None = None
    """Of a run that was loaded, wherever it was moved to; None in training."""
    live_edits: LiveEdits | None = None
    """Takes edits of the masks over while the model is trained; None where nothing is trained."""
    edited_maps_of_checkpoint: Mapping[int, Tensor] = MappingProxyType({})
    """Of a run that is resumed: `LiveEdits.edited_maps` of then."""

    def __init__(
        self,
        config: VanillaPipelineConfig,
        device: torch.device | str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ) -> None:
        provide_ffmpeg()
        if torch.device(device).type == "cuda" and not draws_on_cpu(getattr(config.model, "rasterizer", "auto")):
            prepare_kernels()
        super().__init__(config, str(device), test_mode, world_size, local_rank, grad_scaler)
        if torch.device(device).type == "cpu":
            # "gpu" means "on the device"; the other choice pins memory, which fails without CUDA.
            self.datamanager.config.cache_images = "gpu"  # type: ignore[attr-defined]
        dataset = self.datamanager.train_dataset
        assert dataset is not None
        self.model.set_training_cameras(dataset.cameras, dataset.metadata.get("frame_index"))
        self.panel = ClipPanel(self)  # nerfstudio's viewer looks for it here

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Nerfstudio's, and the report at the end of the training."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        trainer = training_callback_attributes.trainer
        if isinstance(trainer, Das3rTrainer):
            callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], trainer.finish))
        return callbacks

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint. For evaluation, renders and exports the datasets' cameras become the refined ones.

        Training goes on from the given cameras and the loaded corrections, so there they stay as they are.
        """
        super().load_pipeline(loaded_state, step)
        if self.test_mode == "val":
            return
        for dataset in (self.datamanager.train_dataset, self.datamanager.eval_dataset):
            if dataset is not None and len(dataset) > 0:
                self._refine(dataset.cameras)

    def _refine(self, cameras: Cameras) -> None:
        if cameras.metadata is None or "frame_index" not in cameras.metadata:
            return
        refinement = self.model.camera_optimizer
        poses, factors = refinement.refine(cameras, cameras.metadata["frame_index"])
        cameras.camera_to_worlds = poses.to(cameras.camera_to_worlds)
        cameras.fx = cameras.fx * factors.to(cameras.fx)[:, None]
        cameras.fy = cameras.fy * factors.to(cameras.fy)[:, None]


@dataclass
class Das3rRunConfig(Das3rTrainerConfig):
    """Training of a clip, on the GPU where there is one."""

    _target: type = field(default_factory=lambda: Das3rTrainer)
    means_lr_per_extent: bool = False
    """Learning rates of the means are given for training cameras of extent 1 and multiplied by the actual extent (1.1
    times the largest distance of a camera from their middle), as published. Off takes them in world units."""
    budget: BudgetName | int | None = None
    """How much training: `quick`, `normal` or `best` (planned for 20 s, 2 and 8 minutes of 300 frames on an H200), or a
    number of steps. Steps, Gaussians and every schedule follow from it and from the clip, except what you set yourself.
    None takes the settings as they stand."""
    report: bool = True
    """Write report.html into the run's folder after training, as `das3r report` does."""

    def set_timestamp(self) -> None:
        """See that the run can be done before anything is predicted or written."""
        check_budget(self.budget)
        if isinstance(self.pipeline.datamanager, Das3rDatamanagerConfig):
            self.pipeline.datamanager.check()
        super().set_timestamp()


class Das3rTrainer(WholeRunTrainer):
    """Nerfstudio's trainer; says what to expect of the machine, and scales learning rates to the scene."""

    config: Das3rRunConfig
    pipeline: Das3rPipeline

    def __init__(self, config: Das3rRunConfig, local_rank: int = 0, world_size: int = 1) -> None:
        check_device(config)  # again, for those who build a trainer in Python
        super().__init__(config, local_rank, world_size)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Set everything up; a run that never began leaves no folder behind."""
        with ended_by_ctrl_c(program_name()):
            try:
                super().setup(test_mode)
            except BaseException:
                forget_run(self.base_dir)
                raise
        if self.world_size == 1:
            self.pipeline.live_edits = LiveEdits(self.pipeline)
            if self._start_step > 0:
                self.pipeline.live_edits.resume(self.pipeline.edited_maps_of_checkpoint)

    def settle(self) -> None:
        """Plan the training: the clip is known by then. `config.yml` says what came of it."""
        if self.local_rank == 0 and self.config.budget is not None:
            plan_run(self.config, self.base_dir)
            self.config.save_config()
        CONSOLE.print(device_line(self.config), soft_wrap=True)

    def train(self) -> None:
        """Train. Ctrl-C ends in one line, where nerfstudio prints a traceback and reports success."""
        with ended_by_ctrl_c(program_name()):
            super().train()

    def finish(self, step: int) -> None:
        """After the last step, its checkpoint saved: note how long it took, and write the report. The viewer, if there
        is one, stays open meanwhile."""
        del step
        dataset = self.pipeline.datamanager.train_dataset
        if self.local_rank != 0 or dataset is None:
            return
        try:
            self.record_training()
            if self.config.report and dataset.metadata.get("scene_folder") is not None:
                write_report(self.base_dir / REPORT, pipeline=self.pipeline, run=self.base_dir, lock=self.train_lock)
        except Exception as error:  # whatever it is: the training itself is done and saved
            CONSOLE.print(f"No report was written: {sentence_of(error)}", style="bold red", soft_wrap=True)

    def _train_complete_viewer(self) -> None:
        """Keep the viewer open after training until Ctrl-C, which then is the ordinary end."""
        try:
            super()._train_complete_viewer()
        except KeyboardInterrupt:
            CONSOLE.print(f"Viewer closed. The run: {self.base_dir}")

    def take_step(self, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        """One step. Nerfstudio's own also scales gradients for half precision, which there is none of here, and writes
        every learning rate down in every step, which takes as long as some of the kernels."""
        config = self.config
        if self.pipeline.live_edits is not None:
            self.pipeline.live_edits.poll(step)
        if self.mixed_precision or config.log_gradients or set(self.gradient_accumulation_steps.values()) - {1}:
            return super().take_step(step)
        self.optimizers.zero_grad_all()
        _, losses, metrics = self.pipeline.get_train_loss_dict(step=step)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        self.optimizers.optimizer_step_all()
        if step_check(step, config.logging.steps_per_log, run_at_zero=True):
            self.optimizers.scheduler_step_all(step)
        else:
            for scheduler in self.optimizers.schedulers.values():
                scheduler.step()
        return loss, losses, metrics

    def setup_optimizers(self) -> Optimizers:
        """Optimizers of the parameter groups that the model has."""
        groups = self.pipeline.get_param_groups()
        configs = {name: self.config.optimizers[name] for name in groups if name in self.config.optimizers}
        if self.config.means_lr_per_extent:
            assert self.pipeline.datamanager.train_dataset is not None
            configs["means"] = _scaled(configs["means"], camera_extent(self.pipeline.datamanager.train_dataset.cameras))
        return Optimizers(configs, groups)


def forget_run(folder: Path) -> None:
    """Remove the folder of a run that never began: one that holds nothing but its `config.yml` and its plan."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if {path.name for path in files} <= {"config.yml", PLAN}:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):  # of the method, of the clip
            with contextlib.suppress(OSError):
                parent.rmdir()


def device_line(config: TrainerConfig) -> str:
    """One line on where training runs and how long that takes."""
    steps = config.max_num_iterations
    if config.machine.device_type == "cuda":
        return f"Training {steps} steps on {torch.cuda.get_device_name(0)}."
    line = f"No GPU is used: training {steps} steps on the CPU"
    if config.method_name == "das3r-lite":
        return line + ", a few minutes on two cores."
    return line + ", which takes hours. `ns-train das3r-lite` makes a preview in minutes."


def camera_extent(cameras: Cameras) -> float:
    """1.1 times the largest distance of a camera from the mean position (NeRF++), the scene's size as the published
    recipe sees it."""
    centres = cameras.camera_to_worlds[:, :3, 3]
    extent = 1.1 * float((centres - centres.mean(dim=0)).norm(dim=-1).max())
    return extent if extent > 0 else 1.0


def _scaled(group: dict[str, Any], factor: float) -> dict[str, Any]:
    scheduler = group["scheduler"]
    if scheduler is not None:
        scheduler = dataclasses.replace(scheduler, lr_final=scheduler.lr_final * factor)
    return {
        "optimizer": dataclasses.replace(group["optimizer"], lr=group["optimizer"].lr * factor),
        "scheduler": scheduler,
    }
