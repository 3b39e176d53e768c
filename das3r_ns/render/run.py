"""A run of one of our methods, loaded to be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from das3r_ns.runs.config_file import RunError


def load_run(load_config: Path) -> Any:
    """Pipeline of a finished run, in evaluation mode, its cameras refined.

    Raises:
        RunError: there is no such run, or it is of another method.
    """
    from das3r_ns.runs import loading

    return loading.load_run(load_config, "test", change=only_ours(load_config)).pipeline


def only_ours(load_config: Path, keep_dynamic: bool | None = None) -> Callable[[Any], Any]:
    """Check that a config is of one of our methods, and say what is shown."""
    from das3r_ns.model.config import Das3rModelConfig

    def change(config: Any) -> Any:
        if not isinstance(config.pipeline.model, Das3rModelConfig):
            raise RunError(
                f"{load_config} is a run of {config.method_name}; das3r, das3r-paper and das3r-lite can be shown here"
            )
        if keep_dynamic is not None:
            config.pipeline.model.keep_dynamic = keep_dynamic
        return config

    return change
