"""How the pixel loops of the predictors are compiled."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event

from das3r_ns.runtime.progress import CONSOLE


class _Teller(event.Listener):
    """Says in one line that something has to be compiled, the first time that the cache on disk lacks it."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: event.Event) -> None:
        function = getattr((event.data or {}).get("dispatcher"), "py_func", None)
        module = getattr(function, "__module__", None) or ""  # other packages compile what has no module
        if self.told or not module.startswith("das3r_ns."):
            return
        self.told = True
        CONSOLE.print("Compiling pixel loops for this machine, which is done once and takes some 20 seconds in all.")

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


_TELLER = _Teller()
event.register("numba:compile", _TELLER)


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
