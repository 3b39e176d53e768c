"""Global alignment: many pairwise pointmaps in, one world out.

In: the pointmaps, confidences and dynamic probabilities of the pairs chosen by `pairs.PairGraph`. Out: cameras, focal
lengths, depth maps, dynamic maps. Everything is in OpenCV camera axes. The descent starts from a spanning tree
(`start`): from identity cameras the objective has poor local minima.
"""

from das3r_ns.predictor.network.alignment.align import Alignment, KnownGeometry, align
from das3r_ns.predictor.network.alignment.start import AlignmentError
from das3r_ns.predictor.network.settings import AlignmentConfig

__all__ = ["Alignment", "AlignmentConfig", "AlignmentError", "KnownGeometry", "align"]
