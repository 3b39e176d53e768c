"""Runs that were trained with an earlier release load for ever: their `config.yml` holds our module and field names."""

from pathlib import Path

import pytest
import yaml

SAVED = sorted((Path(__file__).parent / "data" / "saved_configs").glob("*/*.yml"))


def missing_fields(config: object) -> list[str]:
    """Fields of a config, nested ones included, that cannot be read."""
    from dataclasses import fields, is_dataclass

    missing = []
    for field in fields(config):  # type: ignore[arg-type]
        if not hasattr(config, field.name):
            missing.append(f"{type(config).__name__}.{field.name}")
        elif is_dataclass(value := getattr(config, field.name)) and not isinstance(value, type):
            missing += missing_fields(value)
    return missing


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_saved_config_loads_with_every_field(path, request):
    if path.parent.name == "2026-11-24":
        request.applymarker(pytest.mark.xfail(reason="fields that came after the first release are not filled yet"))
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.Loader)
    assert config.method_name == path.stem
    assert missing_fields(config) == []
