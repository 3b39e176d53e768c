"""Which predictor to use. Predictors are imported when one is built, never before: a cached scene needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from das3r_ns.predictor.base import Predictor
    from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
    from das3r_ns.predictor.network.settings import NetworkPredictorConfig

PredictorChoice = Literal["auto", "geometric", "network"]
"""`auto`: the network when its weights are at hand, or there is a GPU and they can be fetched; else geometric."""

PredictorName = Literal["geometric", "network"]


def resolve(choice: PredictorChoice, weights: str | None = None) -> tuple[PredictorName, str]:
    """The predictor that `choice` means here and now, and why, as half a sentence.

    Args:
        weights: of the network; None means the published ones. `auto` fetches them where a GPU makes it worth while.
    """
    if choice != "auto":
        return choice, "as asked for"
    import torch

    from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS
    from das3r_ns.predictor.network.weights_source import (
        WeightsError,
        download_weights,
        hub_reachable,
        weights_available,
    )

    weights = weights or DEFAULT_WEIGHTS
    if weights_available(weights):
        return "network", "its weights are at hand"
    missing = "the network's weights are not here"
    if not torch.cuda.is_available():
        return (
            "geometric",
            f"{missing}, nor is a GPU, without which it takes hours (das3r download weights brings them)",
        )
    if not hub_reachable():
        return "geometric", f"{missing} and their hub cannot be reached (`das3r download weights` says more)"
    try:
        download_weights(weights)
    except WeightsError:
        return "geometric", f"{missing} and could not be fetched (`das3r download weights` says why)"
    return "network", "its weights were fetched just now"


def build_predictor(
    choice: PredictorChoice, geometric: GeometricPredictorConfig, network: NetworkPredictorConfig
) -> tuple[Predictor, str]:
    """Build the predictor that `choice` means.

    Returns:
        The predictor, and the reason for the choice.

    Raises:
        WeightsError: the network was asked for, and its weights are neither here nor to be fetched; the message says
            how to bring them.
    """
    name, reason = resolve(choice, network.weights)
    if name == "network":
        from das3r_ns.predictor.network.predictor import NetworkPredictor
        from das3r_ns.predictor.network.weights_source import locate_weights

        locate_weights(network.weights)  # before the long work; fetches them, or says how to bring them
        return NetworkPredictor(network), reason
    from das3r_ns.predictor.geometric.predictor import GeometricPredictor

    return GeometricPredictor(geometric), reason
