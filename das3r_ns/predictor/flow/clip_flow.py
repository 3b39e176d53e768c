"""Optical flow: two images in, for every pixel of the first where it went in the second.

`FlowEstimator` is what the other rooms ask for; `DisFlow` (OpenCV, no weights, a few milliseconds a pair on a CPU) is
the default and `RaftFlow` (torchvision, `raft`) is used when its weights are on disk. Flow is in pixels of the given
images, (du, dv), so `target = pixel + flow` whatever the pixel-centre convention.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from jaxtyping import Float, Float32, UInt8

from das3r_ns.predictor.flow import seeding
from das3r_ns.predictor.flow.estimator import FlowBothWays, FlowEstimator
from das3r_ns.predictor.flow.flow_maps import resize_flow, round_trip_error
from das3r_ns.predictor.flow.matches import Match

APART_SHARE = 3 / 8
"""Of the memory for flow: what is kept between frames that are no neighbours. Of the default, room for all that is
followed from a frame up to 48 frames either way."""


class _Kept:
    """Flow by its frames, the least recently used forgotten when there is no room for more."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = self._left = memory_bytes
        self._flow: OrderedDict[tuple[int, int], Float[np.ndarray, "h w 2"]] = OrderedDict()
        self.whole = True
        """Whether nothing was ever forgotten."""

    def get(self, key: tuple[int, int]) -> Float[np.ndarray, "h w 2"] | None:
        found = self._flow.get(key)
        if found is not None:
            self._flow.move_to_end(key)
        return found

    def keep(self, key: tuple[int, int], flow: Float[np.ndarray, "h w 2"]) -> None:
        if key in self._flow:  # its way back had been forgotten, and both were computed again
            self._left += self._flow.pop(key).nbytes
        self._flow[key] = flow
        self._left -= flow.nbytes
        while self._left < 0 and len(self._flow) > 1:
            self._left += self._flow.popitem(last=False)[1].nbytes
            self.whole = False

    def clear(self) -> None:
        self.whole &= not self._flow
        self._flow.clear()
        self._left = self._memory_bytes


class FlowBetweenFrames:
    """Flow between frames of a clip at map resolution, computed when asked for and kept while memory allows.

    The least recently used flow is forgotten first; asking for it again computes it again, so a clip of any length
    works in the memory given. Flow between neighbours is asked for by every stage from the first frame to the last,
    other flow only around the frame that a stage has come to: it gets a part of the memory, and does not drive out what
    is asked for again. Threads may ask at the same time: what one is computing the other waits for.

    Args:
        frame: frame i, RGB, at the resolution that flow is estimated at.
        matcher: point matches between frames, in pixels of `frame`. Flow that loses its way (`seeding`) is then sought
            again from a guess; None takes it as it comes.
    """

    def __init__(
        self,
        frame: Callable[[int], UInt8[np.ndarray, "h w 3"]],
        map_size: tuple[int, int],
        estimator: FlowEstimator,
        memory_bytes: int = 1 << 30,
        matcher: Match | None = None,
    ) -> None:
        self._frame = frame
        self.matcher = matcher
        """As given."""
        self.map_size = map_size
        """Height and width of the flow."""
        self._estimator = estimator
        apart = int(APART_SHARE * memory_bytes)
        self._neighbours, self._apart = _Kept(memory_bytes - apart), _Kept(apart)
        self._running: dict[tuple[int, int], Future[Float[np.ndarray, "h w 2"]]] = {}
        self._lock = threading.Lock()

    def __call__(self, source: int, target: int) -> Float32[np.ndarray, "h w 2"]:
        """Flow from frame `source` to frame `target`, in map pixels."""
        key = (source, target)
        with self._lock:
            kept, running = self._place(key).get(key), self._running.get(key)
            if kept is None and running is None:
                mine = {key: Future()}
                if self.matcher is not None or isinstance(self._estimator, FlowBothWays):
                    mine[target, source] = Future()
                self._running.update(mine)
        if kept is not None:
            return kept.astype(np.float32)
        if running is not None:
            return running.result().astype(np.float32)
        try:
            for asked, flow in zip(mine, self._estimate(source, target), strict=True):
                # Half precision is exact to 1/64 pixel below 32 pixels, a tenth of the noise of the flow itself.
                mine[asked].set_result(resize_flow(flow, self.map_size).astype(np.float16))
        except BaseException as e:
            for future in mine.values():
                if not future.done():
                    future.set_exception(e)
        with self._lock:
            for asked, future in mine.items():
                del self._running[asked]
                if future.exception() is None:
                    self._place(asked).keep(asked, future.result())
        return mine[key].result().astype(np.float32)

    def _estimate(self, source: int, target: int) -> tuple[Float32[np.ndarray, "h w 2"], ...]:
        a, b = self._frame(source), self._frame(target)
        if self.matcher is not None:
            return self._found_again(source, target, a, b, self.matcher)
        if isinstance(self._estimator, FlowBothWays):
            return self._estimator.both(a, b)
        return (self._estimator(a, b),)

    def _found_again(self, source: int, target: int, a: np.ndarray, b: np.ndarray, matcher: Match) -> seeding.BothWays:
        """Flow there and back; where most of it is lost, from guesses as well, the best of each pixel."""
        results = [self._both_ways(a, b)]
        if self._found_share(results[0]) >= seeding.FULL_SHARE:
            return results[0]
        size = (a.shape[0], a.shape[1])
        if abs(target - source) > 1:
            middle = (source + target) // 2
            first = self(source, middle), self(middle, source)
            second = self(middle, target), self(target, middle)
            self._add_seeded(results, a, b, seeding.chain(first, second, size))
        if max(map(self._found_share, results)) < seeding.MATCHING_SHARE:
            self._add_seeded(results, a, b, seeding.guess_from_matches(matcher(source, target), size))
        return seeding.merge(a, b, results)

    def _add_seeded(
        self, results: list[seeding.BothWays], a: np.ndarray, b: np.ndarray, guess: seeding.Guess | None
    ) -> None:
        if guess is not None:
            results.append(
                (seeding.seeded(self._estimator, a, b, guess[0]), seeding.seeded(self._estimator, b, a, guess[1]))
            )

    def _both_ways(self, a: np.ndarray, b: np.ndarray) -> seeding.BothWays:
        if isinstance(self._estimator, FlowBothWays):
            return self._estimator.both(a, b)
        return self._estimator(a, b), self._estimator(b, a)

    def _found_share(self, flows: seeding.BothWays) -> float:
        forward, backward = (resize_flow(flow, self.map_size) for flow in flows)
        return float(seeding.found(forward, backward).mean())

    def _place(self, key: tuple[int, int]) -> _Kept:
        return self._neighbours if abs(key[0] - key[1]) == 1 else self._apart

    def forget_apart(self, asked_again: bool = False) -> None:
        """Make room where a stage asks for flow between neighbours only, as those that follow along time do.

        Args:
            asked_again: a later stage goes through the clip once more. Then what is kept stays if it is all that was
                ever asked for. Of a longer clip it is the end that is kept, and driven out before it is come to.
        """
        with self._lock:
            if not (asked_again and self._apart.whole):
                self._apart.clear()

    def checked(self, source: int, target: int) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"]]:
        """Flow from `source` to `target` and its round-trip error, both in map pixels."""
        forward = self(source, target)
        return forward, round_trip_error(forward, self(target, source))
