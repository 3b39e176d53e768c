"""Predictors: frames in, a `Scene` (cameras, depth, dynamic maps) out. Knows no nerfstudio and no gsplat."""

from das3r_ns.predictor._released import enter_moved_modules

enter_moved_modules()
