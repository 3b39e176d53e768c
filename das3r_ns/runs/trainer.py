"""A trainer that loses nothing: checkpoints are whole or not there, a full disk does not stop it, and it ends in order
and goes on as if it had never stopped."""

from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.files.json_files import write_json
from das3r_ns.files.whole import WRITING as HALF_WRITTEN
from das3r_ns.files.whole import DiskFullError, check_room, sweep
from das3r_ns.runs.checkpoints import (
    KEPT,
    CheckpointError,
    checkpoint_path,
    checkpoint_steps,
    read_checkpoint,
    read_newest,
    save_checkpoint,
)
from das3r_ns.runs.resuming import load_rest, resume_path, save_rest
from das3r_ns.runs.scene_of_run import record_scene
from das3r_ns.runtime.signals import Terminated, say_terminated, terminated_in_order

COPIES = 3
"""Numbers that a checkpoint holds for each parameter: itself and two of Adam's."""
MIN_ROOM_BYTES = 32 << 20
"""Asked for before anything is predicted; how much a run takes is known when its Gaussians are."""
ANOTHER_PLACE = "Make room, or choose another place with --output-dir."
TRAINING_RECORD = "training.json"
"""In a run's folder: how long its training took."""
ROOM_FOR = KEPT + 1
"""Checkpoints there must be room for: those that are kept, and the one that is being written."""


class WholeRunTrainer(Trainer):
    """See the module."""

    pipeline: Any
    _began_s = 0.0
    """When the training began, by the clock that measures differences."""
    _saved_step: int | None = None
    _done_step: int | None = None
    """Last step whose parameters are all updated."""
    _in_step = False
    _stop: BaseException | None = None
    """What a signal asked for, until the step is done."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Set everything up; see that there is room for the checkpoints, and note which scene the run is trained on.

        Raises:
            DiskFullError: there is not.
        """
        with terminated_in_order(f"ns-train {self.config.method_name}"):
            for folder in {self.base_dir, (self.config.load_dir or self.checkpoint_dir).parent}:
                sweep(folder, HALF_WRITTEN)
            check_room(self.checkpoint_dir, MIN_ROOM_BYTES, "a run", ANOTHER_PLACE)
            self.settle()
            super().setup(test_mode)
            # Of a resumed run nowhere else: nerfstudio would count the time left from the steps that are still to do.
            writer.GLOBAL_BUFFER["max_iter"] = self._start_step + self.config.max_num_iterations
            if self.local_rank != 0:
                return
            sizes = [parameter.numel() * parameter.element_size() for parameter in self.pipeline.parameters()]
            check_room(
                self.checkpoint_dir,
                ROOM_FOR * COPIES * sum(sizes),
                "the checkpoints of this run",
                ANOTHER_PLACE,
            )
            dataset = self.pipeline.datamanager.train_dataset
            scene = None if dataset is None else dataset.metadata.get("scene_folder")
            if scene is not None:
                self.base_dir.mkdir(parents=True, exist_ok=True)
                record_scene(self.base_dir, Path(scene))

    def settle(self) -> None:
        """What has to be settled before the pipeline is built: nothing."""

    # --- Saving ------------------------------------------------------------------------------------------------------

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Save the run, whole or not at all. A full disk is one line and training goes on; the next save tries again.

        Raises:
            OSError: the last checkpoint of the training cannot be saved.
        """
        if step == self._saved_step:
            return
        module = getattr(self.pipeline, "module", self.pipeline)
        state = {
            "step": step,
            "pipeline": module.state_dict(),
            "optimizers": {name: value.state_dict() for name, value in self.optimizers.optimizers.items()},
            "schedulers": {name: value.state_dict() for name, value in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        keep = KEPT if self.config.save_only_latest_checkpoint else None
        # What belongs to the checkpoint comes first: a checkpoint that is there is complete.
        earlier = checkpoint_steps(self.checkpoint_dir)
        kept = [old for old in earlier if old <= step][: None if keep is None else keep - 1]
        try:
            save_rest(resume_path(self.checkpoint_dir, step), module, kept)
            save_checkpoint(state, self.checkpoint_dir, step, keep)
        except OSError as error:
            last = f"The last one that is whole is of step {earlier[0] + 1}." if earlier else "There is no earlier one."
            if self.training_state == "completed":
                kind = DiskFullError if isinstance(error, DiskFullError) else OSError
                raise kind(f"the last checkpoint of the training could not be saved: {error} {last}") from error
            CONSOLE.print(
                f"Step {step + 1} was not saved: {error} {last} Training goes on, and the next save tries again.",
                style="bold red",
                soft_wrap=True,
            )
            return
        self._saved_step = step

    # --- Resuming ----------------------------------------------------------------------------------------------------

    def _load_checkpoint(self) -> None:
        """Go on from a checkpoint, if one was asked for: the newest that can be read.

        A run that stopped before its last step is finished; one that has `max_num_iterations` steps already is given
        as many more, as nerfstudio does.

        Raises:
            CheckpointError: it cannot be read, or belongs to another run.
        """
        config = self.config
        if config.load_dir is not None:
            folder = config.load_dir
            asked = None if config.load_step is None else [config.load_step]
            step, state, skipped = read_newest(folder, asked)
            path = checkpoint_path(folder, step)
            for reason in skipped:
                CONSOLE.print(f"Skipped: {reason}", style="yellow", soft_wrap=True)
        elif config.load_checkpoint is not None:
            path, folder = config.load_checkpoint, config.load_checkpoint.parent
            state = read_checkpoint(path)
            step = int(state["step"])
        else:
            return
        try:
            self.pipeline.load_pipeline(state["pipeline"], step)
            self._load_optimizers(_with_shared_names(state))
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} does not fit this run: {error}") from error
        exact = load_rest(resume_path(folder, step), self.pipeline)
        self._start_step = step + 1
        left = config.max_num_iterations - self._start_step
        if left > 0:
            self.config = replace(config, max_num_iterations=left)
        last = self._start_step + self.config.max_num_iterations
        order = "" if exact else " Frames come in a new order, with new random numbers."
        CONSOLE.print(f"Going on at step {self._start_step + 1} of {last} from {path}.{order}", soft_wrap=True)

    def _load_optimizers(self, state: dict[str, Any]) -> None:
        self.optimizers.load_optimizers(state["optimizers"])
        for name, optimizer in self.optimizers.optimizers.items():
            for parameter, values in optimizer.state.items():
                for key, value in values.items():
                    if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                        raise ValueError(
                            f"{key} of the optimizer {name} is {tuple(value.shape)}, its parameter "
                            f"{tuple(parameter.shape)}"
                        )
        if "schedulers" in state and self.config.load_scheduler:
            self.optimizers.load_schedulers(state["schedulers"])
        self.grad_scaler.load_state_dict(state["scalers"])

    # --- Ending in order ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train. Ctrl-C and SIGTERM end the training after the step that is under way, with a checkpoint of it."""
        self._began_s = time.perf_counter()
        handlers = self._take_signals()
        try:
            super().train()
        except (KeyboardInterrupt, Terminated) as stopped:
            self._in_step, self._stop = False, None
            self._save_where_it_stopped()
            if isinstance(stopped, Terminated):
                say_terminated(f"ns-train {self.config.method_name}")
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def record_training(self) -> None:
        """Note in the run's folder how long the training took, of a resumed one since then.

        Raises:
            OSError: the folder cannot be written.
        """
        seconds = round(time.perf_counter() - self._began_s, 1)
        write_json(self.base_dir / TRAINING_RECORD, {"seconds": seconds, "steps": self.config.max_num_iterations})

    def train_iteration(self, step: int) -> Any:
        """One step; before it, what a signal asked for while the last one was under way."""
        if self._stop is not None:
            raise self._stop
        self._in_step = True
        result = self.take_step(step)
        self._done_step = step
        return result

    def take_step(self, step: int) -> Any:
        """The step itself."""
        return super().train_iteration(step)

    def eval_iteration(self, step: int) -> None:
        """Evaluate now and then; nothing is trained, so that a signal need not wait."""
        self._in_step = False
        if self._stop is not None:
            raise self._stop
        super().eval_iteration(step)

    def _save_where_it_stopped(self) -> None:
        step = self._done_step
        if step is None or self.training_state == "completed" or self.local_rank != 0:
            return
        self.save_checkpoint(step)
        if self._saved_step == step:
            last = self._start_step + self.config.max_num_iterations
            CONSOLE.print(
                f"Stopped after step {step + 1} of {last}; it is saved. To go on: ns-train {self.config.method_name} "
                f"--data {self.config.data} --load-dir {self.checkpoint_dir}",
                soft_wrap=True,
            )

    def _take_signals(self) -> dict[int, Any]:
        """Let a signal wait for the end of a step; returns the handlers there were. A second signal does not wait."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        handlers: dict[int, Any] = {}
        for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler):  # else it is somebody else's business
                handlers[number] = before
                signal.signal(number, partial(self._on_signal, kind, before))
        return handlers

    def _on_signal(self, kind: type[BaseException], before: Any, number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before)
        if self._in_step and self.training_state == "training":
            self._stop = kind()
        else:
            raise kind()


def _with_shared_names(value: Any) -> Any:
    """The same with one object for each name, as a state has it that was never stored: pickle writes a name that it met
    before in another way, and the checkpoints of a resumed run are to have the bytes of one that never stopped."""
    if isinstance(value, dict):
        names = {name: sys.intern(name) if type(name) is str else name for name in value}
        return {names[name]: _with_shared_names(item) for name, item in value.items()}
    return [_with_shared_names(item) for item in value] if type(value) is list else value
