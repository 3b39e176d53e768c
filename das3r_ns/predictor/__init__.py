"""Predictors: frames in, a `Scene` (cameras, depth, dynamic maps) out. Knows no nerfstudio and no gsplat."""
