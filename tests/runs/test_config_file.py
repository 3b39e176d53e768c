"""`config.yml` of strangers: settings are read, nothing is executed, what is refused is named with its line."""

import copy
import os
import time
from pathlib import Path

import pytest
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from das3r_ns.runs.config_file import RunError, parse_config, read_config

GOOD = Path(__file__).parents[1] / "data" / "saved_configs" / "2026-11-30" / "das3r-lite.yml"

INSTALLED = {name: config for name, config in all_methods.items() if not type(config).__name__.startswith("External")}


@pytest.mark.parametrize("name", INSTALLED)
def test_the_settings_of_every_installed_method_come_back(name):
    config = copy.deepcopy(INSTALLED[name])
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=Path("a") / "b")
    assert parse_config(yaml.dump(config)) == config


EVENT = "!!python/name:nerfstudio.utils.writer.EventName ''"


@pytest.mark.parametrize("call", ["getattr", "builtins.getattr"])
def test_an_enum_member_as_python_3_11_2_saves_it(call):
    from nerfstudio.utils.writer import EventName

    text = f"- !!python/object/apply:{call} [{EVENT}, TRAIN_RAYS_PER_SEC]\n"
    assert parse_config(text) == [EventName.TRAIN_RAYS_PER_SEC]


CODE = {
    "apply": "!!python/object/apply:os.system ['touch {mark}']",
    "apply mapping": "!!python/object/apply:os.system {{args: ['touch {mark}']}}",
    "apply of ours": "!!python/object/apply:das3r_ns.runtime.children.run_child [['touch', '{mark}']]",
    "apply of nerfstudio": "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {mark}']",
    "apply of torch": "!!python/object/apply:torch.hub.load ['{mark}', 'x']",
    "apply of a data class": "!!python/object/apply:nerfstudio.configs.base_config.PrintableConfig []",
    "new": "!!python/object/new:os.system ['touch {mark}']",
    "new with state": "!!python/object/new:subprocess.Popen {{args: [['touch', '{mark}']]}}",
    "new with listitems": "!!python/object/new:str {{state: {{upper: 1}}, listitems: !!python/name:exec }}",
    "object": "!!python/object:subprocess.Popen {{args: ['touch', '{mark}']}}",
    "object with slots": "!!python/object:types.SimpleNamespace {{a: 1}}",
    "object of ours that is not settings": "!!python/object:das3r_ns.runs.host._GuardedYaml {{}}",
    "object with a private field": "!!python/object:nerfstudio.configs.base_config.MachineConfig {{__class__: 1}}",
    "name": "!!python/name:os.system ''",
    "name of a builtin": "!!python/name:eval ''",
    "name of a function of nerfstudio": "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "name by another module": "!!python/name:nerfstudio.utils.scripts.subprocess ''",
    "name of a class brought along": "!!python/name:das3r_ns.runtime.children.subprocess.Popen ''",
    "name of a dunder": "!!python/name:das3r_ns.runtime.children.__loader__ ''",
    "name nowhere": "!!python/name:das3r_ns.no_such_module.Thing ''",
    "module": "!!python/module:this ''",
    "getitem": "!!python/object/apply:operator.getitem [{{a: !!python/name:os.system ''}}, a]",
    "getattr": "!!python/object/apply:builtins.getattr [!!python/name:pathlib.Path '', home]",
    "getattr of an enum": "!!python/object/apply:builtins.getattr [" + EVENT + ", __class__]",
    "getattr of no name": "!!python/object/apply:builtins.getattr [" + EVENT + ", [TRAIN_RAYS_PER_SEC]]",
    "getattr with a default": "!!python/object/apply:builtins.getattr [" + EVENT + ", TRAIN_RAYS_PER_SEC, 1]",
    "path with a number": "!!python/object/apply:pathlib.PosixPath [1]",
    "path method": "!!python/object/apply:pathlib.Path.home []",
    "ruby": "!ruby/object:Gem::Installer {{}}",
    "tuple of code": "!!python/tuple [!!python/object/apply:os.system ['touch {mark}']]",
    "complex": "!!python/complex '1+2j'",
    "bytes": "!!python/bytes 'aa'",
}
PLACES = {"root": "{code}\n", "field": None, "key": "? {code}\n: 1\n"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", CODE)
def test_code_is_refused_with_its_tag_and_line_and_never_executed(tmp_path, kind, place):
    if (kind, place) == ("object with a private field", "key"):
        pytest.skip("settings are no keys, whatever they hold")
    mark = tmp_path / "executed"
    code = CODE[kind].format(mark=mark)
    if place == "field":
        lines = GOOD.read_text().splitlines()
        row = next(i for i, line in enumerate(lines) if line.startswith("load_step:"))
        lines[row] = f"load_step: {code}"
        text, line = "\n".join(lines), row + 1
    else:
        text, line = PLACES[place].format(code=code), 1
    path = tmp_path / "config.yml"
    path.write_text(text)
    tag = "!!python/" if "python/" in code else "!ruby/"
    with pytest.raises(RunError, match=rf"config.yml, line {line}: the tag {tag}.*Nothing was loaded"):
        read_config(path)
    assert not mark.exists()


LAUGHS = "a: &a [1,1,1]\n" + "".join(f"{c}: &{c} [*{p},*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi"))
DAMAGED = {
    "empty": ("", "holds NoneType"),
    "a number": ("5", "holds int"),
    "not text": (b"\xff\xfe\x00\x01", "is damaged"),
    "a NUL": ("a: \0", "is damaged"),
    "half": (GOOD.read_text()[:3000], "damaged"),
    "an unknown anchor": ("a: *nobody", "undefined alias"),
    "nested": ("[" * 5000, "nested too deeply"),
    "large": ("#" * (1 << 20), "has 1048576 bytes"),
    "another class": ("!!python/object:nerfstudio.configs.base_config.MachineConfig {seed: 1}", "holds MachineConfig"),
    "laughs": (LAUGHS, "holds dict"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_config_is_told_at_once(tmp_path, kind):
    content, message = DAMAGED[kind]
    path = tmp_path / "config.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.perf_counter()
    with pytest.raises(RunError, match=message):
        read_config(path)
    assert time.perf_counter() - start < 10


CHANGED = {
    "steps": ("max_num_iterations: ", "max_num_iterations: many", "not a number of steps"),
    "steps below 1": ("max_num_iterations: ", "max_num_iterations: 0", "not a number of steps"),
    "method": ("method_name: ", "method_name: splatmagic", "'splatmagic', which is not installed"),
    "no method": ("method_name: ", "method_name: null", "names no method"),
    "output": ("timestamp: ", "timestamp: [1]", "timestamp is .1., not a name"),
    "name": ("experiment_name: ", "experiment_name: 7", "experiment_name is 7"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_value_that_makes_no_run_is_named(tmp_path, kind):
    begins, line, message = CHANGED[kind]
    lines = [line if row.startswith(begins) else row for row in GOOD.read_text().splitlines()]
    path = tmp_path / "config.yml"
    path.write_text("\n".join(lines))
    with pytest.raises(RunError, match=message):
        read_config(path)


@pytest.mark.parametrize("part", ["pipeline", "datamanager", "model"])
def test_a_part_that_is_missing_is_named(tmp_path, part):
    config = parse_config(GOOD.read_text())
    setattr(config if part == "pipeline" else config.pipeline, part, [1])
    path = tmp_path / "config.yml"
    path.write_text(yaml.dump(config))
    with pytest.raises(RunError, match=f"its {part} is list"):
        read_config(path)


def test_what_is_not_a_file_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "missing.yml"):
        with pytest.raises(RunError, match="is not a file"):
            read_config(path)
    fifo = tmp_path / "fifo.yml"
    os.mkfifo(fifo)
    with pytest.raises(RunError, match="is not a file"):
        read_config(fifo)
