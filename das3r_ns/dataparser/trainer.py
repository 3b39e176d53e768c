"""nerfstudio's trainer config, with what has to be settled when a run begins so that its `config.yml` says it for ever.

Class paths are stored in every `config.yml`: this class keeps its module and name.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.dataparser.cache import scene_of_lost_data
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.machine.checks import prepare_gpu
from das3r_ns.machine.hardware import gpus_without_driver
from das3r_ns.model.rasterizer import draws_on_cpu
from das3r_ns.predictor.registry import options_of, resolve
from das3r_ns.runtime.failures import end_in_a_sentence, program_name


@dataclass
class Das3rTrainerConfig(SavedConfig, TrainerConfig):
    """nerfstudio's trainer config, which names the run after the clip (nerfstudio itself takes the parent folder of
    a file) and writes into `config.yml` which predictor and mask refiner `auto` came to mean."""

    loaded_from: ClassVar[Path | None] = None
    """Folder of a run that was loaded, wherever it was moved to; set on the config that was read, never saved."""

    def get_base_dir(self) -> Path:
        """The run's folder: where it was loaded from, else the place that its names make up."""
        return super().get_base_dir() if self.loaded_from is None else self.loaded_from

    def set_timestamp(self) -> None:
        """The first that nerfstudio asks of a run: see that it can be done before anything is written."""
        end_in_a_sentence(program_name())
        check_run(self)
        super().set_timestamp()

    def print_to_terminal(self) -> None:
        """Say what is about to happen. Nerfstudio prints every setting, some 400 lines; they are in `config.yml`."""
        CONSOLE.print(f"{self.method_name}: {self.pipeline.datamanager.data} -> {self.get_base_dir()}")

    def set_experiment_name(self) -> None:
        """Name the experiment after the clip, unless it has a name."""
        if self.experiment_name is None and self.pipeline.datamanager.data is not None:
            self.experiment_name = clip_name(self.pipeline.datamanager.data)
        super().set_experiment_name()

    def save_config(self) -> None:
        """Settle the predictor, so that a later command loads the scene this run was trained on; then save."""
        dataparser = self.pipeline.datamanager.dataparser
        data = self.pipeline.datamanager.data or dataparser.data
        if isinstance(dataparser, Das3rDataParserConfig) and kind_of(data) != "scene":
            dataparser.check()  # before weights are fetched for what cannot work
            if dataparser.predictor == "auto" and data.exists():  # else a scene of the lost clip says which it was
                dataparser.predictor, reason = resolve(dataparser)
                print(f"Predictor: {dataparser.predictor}, {reason}.")
            for name, settings in options_of(dataparser).items():
                setattr(dataparser, name, settings.resolve_auto())
        super().save_config()


def check_run(config: TrainerConfig) -> None:
    """See that a run can be done: options that make sense, data that is there, a place to write, a machine that fits.

    Raises:
        ValueError, FileNotFoundError, OSError: what the user gave does not fit.
        MachineError: the machine lacks something.
    """
    dataparser = config.pipeline.datamanager.dataparser
    if config.max_num_iterations < 1:
        raise ValueError(f"--max-num-iterations must be 1 or more, got {config.max_num_iterations}.")
    if config.machine.num_devices != 1 or config.machine.num_machines != 1:
        raise ValueError(
            f"--machine.num-devices is {config.machine.num_devices}, and {config.method_name} trains on one device: "
            "leave it at 1."
        )
    for option, path in (("--load-dir", config.load_dir), ("--load-checkpoint", config.load_checkpoint)):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{option} {path} does not exist.")
    if config.load_dir is not None and not any(config.load_dir.glob("step-*.ckpt")):
        raise FileNotFoundError(
            f"--load-dir {config.load_dir} holds no checkpoint (step-*.ckpt). Give the folder nerfstudio_models of a "
            "run."
        )
    if isinstance(dataparser, Das3rDataParserConfig):
        _check_data(config, dataparser)
    _check_output(config.output_dir)
    check_device(config)
    if config.machine.device_type == "cpu" and gpus_without_driver():
        CONSOLE.print("An NVIDIA GPU is in this machine and no driver of NVIDIA is loaded: it is not used.")


def check_device(config: TrainerConfig) -> None:
    """See that the device can be trained on; builds gsplat's kernels if need be.

    Raises:
        ValueError, MachineError: it cannot.
    """
    if config.machine.device_type not in ("cuda", "cpu"):
        raise ValueError(
            f"--machine.device-type is {config.machine.device_type}, and {config.method_name} trains on cuda or cpu."
        )
    if config.machine.device_type == "cuda":
        prepare_gpu("cpu" if draws_on_cpu(getattr(config.pipeline.model, "rasterizer", "auto")) else "auto")


def _check_data(config: TrainerConfig, dataparser: Das3rDataParserConfig) -> None:
    data = config.pipeline.datamanager.data or dataparser.data
    if data == Path():
        raise ValueError(
            f"--data is missing: ns-train {config.method_name} --data VIDEO, where VIDEO is a video file, a folder of "
            "images, a nerfstudio dataset or a scene folder."
        )
    dataparser.check()
    if not data.exists():
        scene_of_lost_data(data, dataparser, dataparser.cache_dir)


def _check_output(folder: Path) -> None:
    folder = folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--output-dir {folder} cannot be made: {there} is a file.")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"--output-dir {folder} cannot be written: no permission in {there}.")
