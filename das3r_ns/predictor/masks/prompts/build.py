"""The one place that knows what answers prompts. Building says at once what is missing."""

from __future__ import annotations

import importlib.util

from das3r_ns.predictor.base import MovingPrompt
from das3r_ns.predictor.masks.prompts.base import Segmenter
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.prompts.weights import (
    PromptWeights,
    locate_pointing_weights,
    locate_prompt_weights,
    role_of,
)


def check_prompt(sources: tuple[str, ...]) -> PromptWeights:
    """Find the package and the weights that prompts need, before anything long begins.

    Raises:
        ImportError: the extra is not installed.
        PromptWeightsError: weights are missing or of another kind.
    """
    _check_package(
        "--masks-prompt needs",
        "Without --masks-prompt, what moves is found by its motion, and --masks takes masks that another program made "
        "from words.",
    )
    return locate_prompt_weights(sources)


def _check_package(needs: str, without: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        raise ImportError(f"{needs} the package transformers: pip install 'das3r-ns[prompt]'. {without}")


def build_segmenter(sources: tuple[str, ...] = (), threshold: float = 0.3) -> Segmenter:
    """What answers words, boxes and clicks.

    Args:
        sources: as of `locate_prompt_weights`.
        threshold: score from which what is found by words counts, 0 to 1.

    Raises:
        as `check_prompt`.
    """
    weights = check_prompt(sources)
    if role_of(weights.words) == "both":
        from das3r_ns.predictor.masks.prompts.sam3 import Sam3

        return Sam3(weights.words, threshold)
    from das3r_ns.predictor.masks.prompts.grounded_sam2 import GroundedSam2

    return GroundedSam2(weights.words, weights.pointed, threshold)


def build_pointing(sources: tuple[str, ...] = ()) -> Segmenter:
    """What answers boxes and clicks alone. Arguments and errors as of `build_segmenter`."""
    _check_package("--clicks sam needs", "Without it, clicks mean what belongs together in motion, colour and depth.")
    folder = locate_pointing_weights(sources)
    from das3r_ns.predictor.masks.prompts.pointing import Pointing

    return Pointing(folder, "Sam3Tracker" if role_of(folder) == "both" else "Sam2")


def build_prompted_objects(prompt: MovingPrompt | None) -> PromptedObjects | None:
    """The stage of the masks that asks for what the user named; None where nothing was.

    Raises:
        as `check_prompt`.
    """
    return None if prompt is None else PromptedObjects(build_segmenter(prompt.weights, prompt.threshold), prompt)
