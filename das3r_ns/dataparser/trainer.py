"""nerfstudio's trainer config, with what has to be settled when a run begins so that its `config.yml` says it for ever.

Class paths are stored in every `config.yml`: this class keeps its module and name.
"""

from dataclasses import dataclass

from nerfstudio.engine.trainer import TrainerConfig

from das3r_ns.dataparser.inputs import kind_of
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.predictor.registry import resolve


@dataclass
class Das3rTrainerConfig(SavedConfig, TrainerConfig):
    """nerfstudio's trainer config, which names the run after the clip (nerfstudio itself takes the parent folder of
    a file) and writes into `config.yml` which predictor and mask refiner `auto` came to mean."""

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
                dataparser.predictor, reason = resolve("auto", dataparser.network.weights)
                print(f"Predictor: {dataparser.predictor}, {reason}.")
            dataparser.geometric = dataparser.geometric.resolve_auto()
        super().save_config()
