"""The pairwise network (CroCo v2 / DUSt3R family with dynamic-mask heads): architecture, weights, inference.

Written from the published descriptions; parameter names are those of the published checkpoints, so their weights load.
"""

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.model import PairPrediction, PairwiseNetwork

__all__ = ["PairPrediction", "PairwiseNetwork", "PairwiseNetworkConfig"]
