"""The pairwise network (CroCo v2 / DUSt3R family with dynamic-mask heads): architecture, weights, inference.

Written from the published descriptions; parameter names are those of the published checkpoints, so their weights load.
"""

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.inference import predict_pairs
from das3r_ns.predictor.network.model import PairPrediction, PairwiseNetwork
from das3r_ns.predictor.network.predictor import NetworkPredictor
from das3r_ns.predictor.network.preprocess import Framing, framing, preprocess_frames
from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS, InferenceConfig, NetworkPredictorConfig
from das3r_ns.predictor.network.weights import WeightsReport, load_network, save_weights
from das3r_ns.predictor.network.weights_source import WeightsError, download_weights, weights_available

__all__ = [
    "DEFAULT_WEIGHTS",
    "Framing",
    "InferenceConfig",
    "NetworkPredictor",
    "NetworkPredictorConfig",
    "PairPrediction",
    "PairwiseNetwork",
    "PairwiseNetworkConfig",
    "WeightsError",
    "WeightsReport",
    "download_weights",
    "framing",
    "load_network",
    "predict_pairs",
    "preprocess_frames",
    "save_weights",
    "weights_available",
]
