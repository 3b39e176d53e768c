"""Networks of the package transformers from a folder: only from files, and only without code of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from das3r_ns.predictor.masks.prompts.weights import PromptWeightsError


def load_pretrained(name: str, folder: Path) -> Any:
    """An object of the class `transformers.NAME`, as a folder describes it.

    Raises:
        ImportError: the package is too old to have the class.
        PromptWeightsError: a file is missing, damaged, or does not fit the class.
    """
    import transformers

    if not hasattr(transformers, name):
        raise ImportError(
            f"transformers {transformers.__version__} has no {name}: pip install --upgrade 'das3r-ns[prompt]'."
        )
    kind = getattr(transformers, name)
    is_network = not name.endswith("Processor")
    given: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True} if is_network else {}
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # it reports at length what is looked at below
    transformers.logging.disable_progress_bar()
    try:
        loaded = kind.from_pretrained(str(folder), local_files_only=True, **given)
    except Exception as error:  # each of its file formats has errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PromptWeightsError(
            f"{folder} cannot be loaded as {name}: {lines[0]} Fetch it again: `hf download REPOSITORY --local-dir "
            f"{folder}`."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
    if not is_network:
        return loaded
    network, info = loaded
    if info["missing_keys"] or info.get("mismatched_keys"):
        wrong = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", ())]))
        raise PromptWeightsError(
            f"{folder} does not fit {name}: {len(wrong)} weights are missing or of another size (first: {wrong[0]}). "
            "Are its files of one release?"
        )
    return network


def device_of_choice() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
