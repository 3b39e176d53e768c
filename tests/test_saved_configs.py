"""Runs that were trained with an earlier release load for ever: their `config.yml` holds our module and field names."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.model.hidden import HiddenConfig
from das3r_ns.predictor._released import MOVED_SETTINGS

SAVED = sorted((Path(__file__).parent / "data" / "saved_configs").glob("*/*.yml"))


def missing_fields(config: Any) -> list[str]:
    """Fields of a config, nested ones included, that cannot be read."""
    missing = []
    for field in dataclasses.fields(config):
        if not hasattr(config, field.name):
            missing.append(f"{type(config).__name__}.{field.name}")
        elif dataclasses.is_dataclass(value := getattr(config, field.name)) and not isinstance(value, type):
            missing += missing_fields(value)
    return missing


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_saved_config_loads_with_every_field(path):
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.Loader)  # as nerfstudio does
    assert config.method_name == path.stem
    assert missing_fields(config) == []
    if path.parent.name == "2026-11-24":  # written a day before the field came
        assert config.pipeline.model.hidden == HiddenConfig()


def test_every_class_of_settings_in_a_config_restores_what_another_release_saved():
    config = yaml.load(SAVED[-1].read_text(encoding="utf-8"), Loader=yaml.Loader)

    def ours(value: Any) -> list[type]:
        if isinstance(value, dict):
            return [kind for item in value.values() for kind in ours(item)]
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return []
        inner = [kind for field in dataclasses.fields(value) for kind in ours(getattr(value, field.name))]
        return [*inner, *([type(value)] if type(value).__module__.startswith("das3r_ns") else [])]

    kinds = set(ours(config))
    assert len(kinds) >= 20
    assert [kind.__name__ for kind in kinds if not issubclass(kind, SavedConfig)] == []


def test_old_module_names_lead_to_the_settings_of_today():
    for old in MOVED_SETTINGS:
        assert f"das3r_ns.predictor.{old}" in sys.modules
    from das3r_ns.predictor.network.settings import WindowConfig

    assert sys.modules["das3r_ns.predictor.windows"].WindowConfig is WindowConfig


@dataclasses.dataclass
class Example(SavedConfig):
    RENAMED_FIELDS = {"laid_over": "detect_overlays"}
    detect_overlays: bool = True
    offsets: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    size: int = dataclasses.field(default=3)


def restored(state: dict[str, Any], kind: type = Example) -> Any:
    config = kind.__new__(kind)
    config.__setstate__(state)
    return config


def test_missing_fields_are_filled_renamed_ones_translated_and_removed_ones_dropped():
    config = restored({"laid_over": False, "size": 5, "gone": 1})
    assert config == Example(detect_overlays=False, size=5)
    assert vars(config) == {"detect_overlays": False, "offsets": [1, 2], "size": 5}
    assert restored({}).offsets is not restored({}).offsets


def test_a_frozen_class_is_restored_too():
    frozen = dataclasses.make_dataclass("Frozen", [("a", int, 1), ("b", int, 2)], bases=(SavedConfig,), frozen=True)
    assert restored({"b": 5}, frozen) == frozen(b=5)


def test_a_field_without_a_default_must_be_there():
    strict = dataclasses.make_dataclass("Strict", [("a", int)], bases=(SavedConfig,))
    with pytest.raises(ValueError, match="Strict is saved without its field a"):
        restored({}, strict)
