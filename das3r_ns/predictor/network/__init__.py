"""The pairwise network (CroCo v2 / DUSt3R family with dynamic-mask heads): architecture, weights, inference.

Written from the published descriptions; parameter names are those of the published checkpoints, so their weights load.
"""
