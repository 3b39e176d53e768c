"""The predictor without weights. Handed on because runs saved by 0.1 name the class so."""

from das3r_ns.predictor.geometric.config import GeometricPredictorConfig as GeometricPredictorConfig
