"""What is closed for nerfstudio's own commands while the methods of this package are installed.

Nerfstudio reads a `config.yml` with a loader that runs whatever the file names, and looks for a moved run where it
was. `ns-eval`, `ns-render`, `ns-export` and `ns-viewer` load every run by `eval_setup`, and `ns-train --load-config`
reads the file itself: both are led to this package's own loading, for runs of any method. Nothing else of the host is
changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from das3r_ns.runs.loading import LoadedRun

EVAL_UTILS = "nerfstudio.utils.eval_utils"
TRAIN = "nerfstudio.scripts.train"
TRUST = "DAS3R_TRUST_CONFIGS"
"""Environment variable that leaves nerfstudio's own loading as it is when set to 1."""


def guard_nerfstudio() -> None:
    """Close what can be closed. Called while nerfstudio's commands import the installed methods, which is before the
    modules named above are complete."""
    if os.environ.get(TRUST) == "1":
        return
    module = sys.modules.get(EVAL_UTILS)
    if module is not None and not isinstance(module, _GuardedEvalUtils):
        module.__class__ = _GuardedEvalUtils
    for name in (TRAIN, "__main__"):
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if module is not None and (name == TRAIN or getattr(spec, "name", None) == TRAIN) and hasattr(module, "yaml"):
            module.yaml = _GuardedYaml()  # type: ignore[attr-defined]


class _GuardedEvalUtils(ModuleType):
    """The module `nerfstudio.utils.eval_utils`, whose `eval_setup`, which it has yet to define, is ours."""

    @property
    def eval_setup(self) -> Callable[..., Any]:
        return eval_setup

    @eval_setup.setter
    def eval_setup(self, value: Callable[..., Any]) -> None:
        self.__dict__["eval_setup"] = value  # as the module itself does; it is not asked for it


def eval_setup(
    config_path: Path,
    eval_num_rays_per_chunk: int | None = None,
    test_mode: Any = "test",
    update_config_callback: Callable[[Any], Any] | None = None,
) -> tuple[Any, Any, Path, int]:
    """Nerfstudio's `eval_setup` by this package's loading: config, pipeline, checkpoint and its step."""
    from das3r_ns.runs.config_file import RunError
    from das3r_ns.runs.loading import load_run

    def change(config: Any) -> Any:
        if eval_num_rays_per_chunk:
            config.pipeline.model.eval_num_rays_per_chunk = eval_num_rays_per_chunk
        return config if update_config_callback is None else update_config_callback(config)

    try:
        run = load_run(config_path, test_mode, change=change)
    except RunError as error:
        raise SystemExit(f"{error}{_hint(error)}") from error
    return run.config, run.pipeline, run.checkpoint, run.step


@contextmanager
def loaded_already(module: ModuleType, run: LoadedRun) -> Iterator[None]:
    """Let a command of nerfstudio, whose `module` this is, take a run as it is loaded already."""

    def loaded(*_: Any, **__: Any) -> tuple[Any, Any, Path, int]:
        return run.config, run.pipeline, run.checkpoint, run.step

    before = module.eval_setup
    module.eval_setup = loaded  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.eval_setup = before  # type: ignore[attr-defined]


def _hint(error: Exception) -> str:
    return f" ({TRUST}=1 lets nerfstudio load a file that you trust.)" if "!!" in str(error) else ""


class _GuardedYaml:
    """What `nerfstudio.scripts.train` has of PyYAML: `load` builds settings and runs nothing."""

    def load(self, text: str, Loader: Any = None) -> Any:
        from das3r_ns.runs.config_file import RefusedTagError, parse_config

        del Loader
        try:
            return parse_config(text)
        except RefusedTagError as error:
            raise SystemExit(f"--load-config, line {error.line}: {error}{_hint(error)}") from error

    def __getattr__(self, name: str) -> Any:
        import yaml

        return getattr(yaml, name)
