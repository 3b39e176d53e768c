"""What a run settles before it begins: its name, what `auto` means; nothing is fetched for what cannot work."""

from pathlib import Path

import pytest
import yaml
from fakes import write_images
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig

from das3r_ns.dataparser import trainer
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.dataparser.trainer import Das3rTrainerConfig
from das3r_ns.predictor.masks.refiners import choice
from das3r_ns.predictor.network.settings import NetworkPredictorConfig


def trainer_config(data: Path, output_dir: Path) -> Das3rTrainerConfig:
    datamanager = FullImageDatamanagerConfig(data=data, dataparser=Das3rDataParserConfig())
    return Das3rTrainerConfig(
        method_name="das3r",
        output_dir=output_dir,
        pipeline=VanillaPipelineConfig(datamanager=datamanager),
        machine=MachineConfig(device_type="cpu"),  # a GPU is looked for before a run gets its name
    )


def test_a_run_is_called_after_its_clip_and_its_config_says_what_auto_meant(tmp_path):
    video = tmp_path / "videos" / "holiday.mp4"
    video.parent.mkdir()
    video.write_bytes(b"x")
    config = trainer_config(video, tmp_path / "outputs")
    config.set_timestamp()
    config.save_config()
    assert config.get_base_dir().parent == tmp_path / "outputs" / "holiday" / "das3r"
    saved = yaml.load((config.get_base_dir() / "config.yml").read_text(), Loader=yaml.Loader)
    assert saved.experiment_name == "holiday"
    assert saved.pipeline.datamanager.dataparser.predictor == "geometric"
    assert saved.pipeline.datamanager.dataparser.geometric.masks.refiner == choice.resolve_auto("auto") != "auto"


def test_weights_of_ones_own_decide_what_auto_means_in_a_run(tmp_path):
    own = tmp_path / "mine.pth"
    own.write_bytes(b"x")
    meant = []
    for weights in (NetworkPredictorConfig().weights, str(own)):
        config = trainer_config(write_images(tmp_path / "shots"), tmp_path / "outputs")
        dataparser = config.pipeline.datamanager.dataparser
        dataparser.network.weights = weights
        config.set_timestamp()
        config.save_config()
        meant.append(dataparser.predictor)
    assert meant == ["geometric", "network"]


@pytest.mark.parametrize("wrong", ["data", "masks"])
def test_no_weights_are_fetched_for_a_run_that_cannot_work(tmp_path, monkeypatch, wrong):
    def resolve(*_):
        pytest.fail("looked for weights, which may fetch them")

    monkeypatch.setattr(trainer, "resolve", resolve)
    shots = tmp_path / "missing.mp4" if wrong == "data" else write_images(tmp_path / "shots")
    config = trainer_config(shots, tmp_path / "outputs")
    dataparser = config.pipeline.datamanager.dataparser
    dataparser.cache_dir = tmp_path / "cache"
    if wrong == "data":
        with pytest.raises(FileNotFoundError, match="does not exist"):
            config.set_timestamp()
        return
    config.set_timestamp()
    dataparser.masks = tmp_path / "no_masks"
    with pytest.raises(FileNotFoundError, match="no_masks does not exist"):
        config.save_config()


def test_a_name_given_by_the_user_stays(tmp_path):
    config = trainer_config(tmp_path / "a.mp4", tmp_path)
    config.experiment_name = "mine"
    config.set_experiment_name()
    assert config.experiment_name == "mine"
