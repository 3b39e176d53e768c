"""Dynamic maps. Handed on because runs saved by 0.1 name the class so."""

from das3r_ns.predictor.masks.config import MaskConfig as MaskConfig
