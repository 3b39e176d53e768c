"""Which predictor to use. Predictors are imported when one is built, never before: a cached scene needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from das3r_ns.predictor.base import Predictor
    from das3r_ns.predictor.geometric import GeometricPredictorConfig

PredictorChoice = Literal["auto", "geometric", "network"]
"""`auto`: the network when its weights are at hand, else geometric."""

PredictorName = Literal["geometric", "network"]


def resolve(choice: PredictorChoice) -> tuple[PredictorName, str]:
    """The predictor that `choice` means here and now, and why, as half a sentence."""
    if choice != "auto":
        return choice, "as asked for"
    reason = _why_no_network()
    return ("network", "its weights are at hand") if reason is None else ("geometric", reason)


def build_predictor(choice: PredictorChoice, geometric: GeometricPredictorConfig) -> tuple[Predictor, str]:
    """Build the predictor that `choice` means.

    Returns:
        The predictor, and the reason for the choice.

    Raises:
        ValueError: the network was asked for and cannot run; the message says what is missing.
    """
    name, reason = resolve(choice)
    if name == "network":
        missing = _why_no_network()
        if missing is not None:
            raise ValueError(f"--predictor network cannot run: {missing}. --predictor geometric needs no weights.")
        from das3r_ns.predictor.network import NetworkPredictor

        return NetworkPredictor(), reason
    from das3r_ns.predictor.geometric import GeometricPredictor

    return GeometricPredictor(geometric), reason


def _why_no_network() -> str | None:
    """None when the network predictor can run, else what it lacks."""
    try:
        from das3r_ns.predictor.network import NetworkPredictor, weights_available
    except ImportError:
        return "this release has no network predictor"
    del NetworkPredictor
    return None if weights_available() else "the network's weights are not here (das3r download brings them)"
