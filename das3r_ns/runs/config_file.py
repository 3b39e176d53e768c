"""Read a run's `config.yml` without executing what it says.

Nerfstudio saves settings as Python objects and reads them with PyYAML's unrestricted loader, which calls whatever a
file names. The loader here builds settings (dataclasses), classes, enum members and paths of nerfstudio, of this
package and of other installed methods, and refuses everything else with the tag and its line.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pathlib
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from das3r_ns.files.saved_config import SavedConfig

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig

MAX_CONFIG_BYTES = 1 << 19
"""A `config.yml` has some 13 kB; PyYAML reads 100 kB a second."""
PYTHON = "tag:yaml.org,2002:python/"


class RunError(ValueError):
    """A run that cannot be used. The message says which file and what to do."""


def read_config(path: Path) -> TrainerConfig:
    """Settings of a run, as saved by this or an earlier release. Nothing in the file is executed.

    Raises:
        RunError: there is no such file, it is damaged, or it holds anything that is not a setting.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path} is not a file. Give the config.yml that ns-train wrote: outputs/CLIP/METHOD/TIME/.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise RunError(
            f"{path} is not the config.yml of a run: it has {path.stat().st_size} bytes, a config about 13000."
        )
    try:
        return check_config(parse_config(path.read_text(encoding="utf-8")), path)
    except RefusedTagError as refused:
        raise RunError(f"{path}, line {refused.line}: {refused}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RunError(f"{path} is not the config.yml of a nerfstudio run, or is damaged: {reason}") from error


def check_config(config: Any, path: Path) -> TrainerConfig:
    """
    Raises:
        RunError: what `path` holds is not the settings of a run of an installed method.
    """
    from nerfstudio.configs.base_config import InstantiateConfig
    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.engine.trainer import TrainerConfig

    if not isinstance(config, TrainerConfig):
        raise RunError(f"{path} is not the config.yml of a nerfstudio run: it holds {type(config).__name__}.")
    if not isinstance(config.method_name, str):
        raise RunError(f"{path} is damaged: it names no method.")
    if config.method_name not in all_methods:
        raise RunError(f"{path} is a run of the method {config.method_name!r}, which is not installed here.")
    pipeline = config.pipeline
    manager, model = getattr(pipeline, "datamanager", None), getattr(pipeline, "model", None)
    for name, part in (("pipeline", pipeline), ("datamanager", manager), ("model", model)):
        if not isinstance(part, InstantiateConfig) or not callable(getattr(part, "_target", None)):
            raise RunError(f"{path} is damaged: its {name} is {type(part).__name__}, not settings of nerfstudio.")
        if isinstance(config, SavedConfig) and not isinstance(part, SavedConfig):
            raise RunError(f"{path} is damaged: its {name} is missing or of another method ({type(part).__name__}).")
    steps = config.max_num_iterations
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise RunError(f"{path} is damaged: its max_num_iterations is {steps!r}, not a number of steps.")
    for name in ("output_dir", "relative_model_dir"):
        if not isinstance(getattr(config, name), pathlib.PurePath):
            raise RunError(f"{path} is damaged: its {name} is {getattr(config, name)!r}, not a path.")
    for name in ("experiment_name", "timestamp"):
        if not isinstance(getattr(config, name), str):
            raise RunError(f"{path} is damaged: its {name} is {getattr(config, name)!r}, not a name.")
    return config


class RefusedTagError(ValueError):
    """A tag that is not a setting."""

    def __init__(self, tag: str, reason: str, line: int) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        super().__init__(f"the tag {shown} {reason}. Nothing was loaded; use only files that you trust.")
        self.line = line


def parse_config(text: str) -> Any:
    """What a `config.yml` says.

    Raises:
        RefusedTagError: a tag names anything but settings, their classes, enum members, paths and tuples.
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load(text, Loader=_ConfigLoader)


class _ConfigLoader(yaml.SafeLoader):
    """PyYAML's safe loader and the few Python tags that a saved config needs."""


def _refused(node: yaml.Node, reason: str) -> RefusedTagError:
    return RefusedTagError(node.tag, reason, node.start_mark.line + 1)


def _tuple(loader: _ConfigLoader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _refused(node, "is not followed by a list")
    return tuple(loader.construct_sequence(node, deep=True))


def _name(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    """A class that settings build, or a function that the settings of an installed method hold."""
    found = _find(suffix, node)
    if isinstance(found, type) or suffix in _methods().functions:
        return found
    raise _refused(node, "is a function that no installed method has in its settings")


def _settings(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Iterator[Any]:
    """A dataclass: its fields are set, its constructor is not called."""
    found = _find(suffix, node)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise _refused(node, "is not a class of settings")
    if not isinstance(node, yaml.MappingNode):
        raise _refused(node, "is not followed by its fields")
    instance: Any = found.__new__(found)
    yield instance
    state: dict[str, Any] = {}
    for name, value in loader.construct_mapping(node, deep=True).items():
        if not isinstance(name, str) or name.startswith("__"):
            raise _refused(node, f"has a field {name!r}")
        state[name] = value
    if isinstance(instance, SavedConfig):
        instance.__setstate__({str(name): value for name, value in state.items()})
    else:
        instance.__dict__.update(state)


def _applied(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    """A path, an enum member or a generic class such as `VanillaDataManager[DepthDataset]`: no other call is made."""
    if not isinstance(node, yaml.SequenceNode):
        raise _refused(node, "would run code")
    if suffix.startswith("pathlib.") and isinstance(cls := getattr(pathlib, suffix[8:], None), type):
        parts = loader.construct_sequence(node, deep=True)
        if issubclass(cls, pathlib.PurePath) and all(isinstance(part, str) and "\0" not in part for part in parts):
            return Path(*parts)
    elif suffix in ("_operator.getitem", "operator.getitem"):
        cls, item, *rest = (*loader.construct_sequence(node, deep=True), None, None)
        items = item if isinstance(item, tuple) else (item,)
        if isinstance(cls, type) and all(isinstance(i, type) for i in items) and rest == [None, None]:
            return cls[item]  # type: ignore[index]
    elif suffix in ("getattr", "builtins.getattr"):  # how Python 3.11.0 to 3.11.3 (Debian 12) saves an enum member
        cls, name, *rest = (*loader.construct_sequence(node, deep=True), None, None)
        members = cls.__members__ if isinstance(cls, type) and issubclass(cls, enum.Enum) else {}
        if isinstance(name, str) and name in members and rest == [None, None]:
            return members[name]
    elif _is_known(suffix):
        found = _find(suffix, node)
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return found(*loader.construct_sequence(node, deep=True))
    raise _refused(node, "would run code")


def _unknown(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    raise _refused(node, "would run code" if node.tag.startswith(PYTHON) else "is not known")


def _is_known(name: str) -> bool:
    module = name.rpartition(".")[0]
    return module == "torch.optim" or module.startswith("torch.optim.") or module.split(".")[0] in _methods().packages


def _find(name: str, node: yaml.Node) -> Any:
    """What a dotted name stands for, in the packages of installed methods only.

    Raises:
        RefusedTagError: it is elsewhere, or nowhere.
    """
    module_name, _, attribute = name.rpartition(".")
    if not _is_known(name) or attribute.startswith("__"):
        raise _refused(node, "is not of nerfstudio, das3r_ns or another installed method")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _refused(node, f"cannot be found ({error}): was it saved by another release?") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise _refused(node, f"cannot be found in {module_name}: was it saved by another release?")
    # A module of ours may have imported something of another package under a name of its own.
    if isinstance(found, type | types.FunctionType) and not _is_known(f"{found.__module__}.{found.__qualname__}"):
        raise _refused(node, "is not of nerfstudio, das3r_ns or another installed method")
    return found


_ConfigLoader.add_constructor(PYTHON + "tuple", _tuple)
_CONSTRUCTORS: dict[str, Callable[[Any, str, Any], Any]] = {
    "name:": _name,
    "object/apply:": _applied,
    "object:": _settings,
}
for _prefix, _constructor in _CONSTRUCTORS.items():
    _ConfigLoader.add_multi_constructor(PYTHON + _prefix, _constructor)
_ConfigLoader.add_multi_constructor(PYTHON, _unknown)
_ConfigLoader.add_multi_constructor("!", _unknown)


@dataclasses.dataclass
class _Methods:
    """What the settings of installed methods are made of."""

    packages: set[str]
    """Top-level packages."""
    functions: set[str]
    """Functions that stand in settings, such as `collate_fn`."""


@lru_cache(maxsize=1)
def _methods() -> _Methods:
    from nerfstudio.configs.dataparser_configs import all_dataparsers
    from nerfstudio.configs.method_configs import all_methods

    found = _Methods({"nerfstudio", "das3r_ns"}, set())
    seen: set[int] = set()

    def walk(value: Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            found.functions.add(f"{value.__module__}.{value.__qualname__}")
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple | set):
            for item in value:
                walk(item)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            found.packages.add(type(value).__module__.partition(".")[0])
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name, None))

    for config in (*all_methods.values(), *all_dataparsers.values()):
        walk(config)
    found.packages.discard("builtins")
    return found
