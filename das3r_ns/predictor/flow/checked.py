"""The type of what other rooms ask of flow: displacement and how far to believe it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

CheckedFlow = Callable[[int, int], tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"]]]
"""Flow (du, dv) from frame i to frame j for (i, j), and the distance in pixels by which forward and then backward flow
miss the pixel they started from (infinite out of view)."""
