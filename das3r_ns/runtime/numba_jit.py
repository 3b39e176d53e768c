"""How the pixel loops of the predictors are compiled."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with Numba: GIL released, code kept on disk beside the module or in `NUMBA_CACHE_DIR`.

    No fast mathematics: the loops tell NaN (no value) and infinity (not seen) apart.
    """
    function = inspect.unwrap(function)  # under test jaxtyping wraps it, and Numba needs the bare one
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no writable folder, neither beside the module nor in the user's cache
        warnings.warn(
            "No writable folder for compiled code, so every process compiles it anew (some seconds). "
            "Point NUMBA_CACHE_DIR to a writable folder to avoid that.",
            stacklevel=2,
        )
        return numba.njit(nogil=True, error_model="numpy")(function)
