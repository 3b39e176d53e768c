"""Seconds that a training takes, measured also where several trainings share a GPU.

With a folder of locks, every so often one process has the GPU alone for a few steps, and its other steps count as the
last of those samples says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import torch

SAMPLE_EVERY, SAMPLE_WARM, SAMPLE_STEPS = 400, 3, 12
"""Steps between two samples of the time that a step takes alone, steps that are not timed, and
those that are."""


class TrainingClock:
    """Seconds of training: of this process alone, or, sharing the GPU, from samples of what steps take alone."""

    def __init__(self, locks: str | None) -> None:
        self.seconds, self._since, self._step_s, self._uncounted = 0.0, time.perf_counter(), 0.0, 0
        self._locks: tuple[int, int] | None = None
        if locks is not None:
            Path(locks).mkdir(exist_ok=True)
            gate, gpu = (os.open(f"{locks}/{name}", os.O_RDWR | os.O_CREAT) for name in ("gate", "gpu"))
            self._locks = gate, gpu

    def now(self) -> float:
        """Seconds of training so far."""
        if self._locks is None:
            now = time.perf_counter()
            self.seconds, self._since = self.seconds + now - self._since, now
        return self.seconds

    def end(self) -> None:
        """The last step is done."""
        synchronize()
        self.now()
        if self._locks is not None:
            for lock in self._locks:
                os.close(lock)  # which also gives up what it holds

    def may_stop(self, step: int) -> bool:
        """Whether no sample is under way, in which the GPU is this process's alone."""
        return self._locks is None or phase_of(step) >= SAMPLE_WARM + SAMPLE_STEPS

    def stopped(self) -> Any:
        """Something that is not training."""
        return _Stopped(self)

    def step(self, step: int) -> Any:
        """One step."""
        return contextlib.nullcontext() if self._locks is None else _Shared(self, self._locks, phase_of(step))

    def count(self, seconds: float | None = None) -> None:
        """Count a step as the last sample says, or as this one does; steps before the first wait for it."""
        if seconds is not None:
            self._step_s, self._uncounted = seconds, self._uncounted * (self._step_s == 0)
        if self._step_s == 0:
            self._uncounted += 1
        else:
            self.seconds += (self._uncounted + 1) * self._step_s
            self._uncounted = 0


def phase_of(step: int) -> int:
    """Place of a step between two samples; the first sample comes at step 100, when all is warm."""
    return (step - 100) % SAMPLE_EVERY


class _Stopped:
    def __init__(self, clock: TrainingClock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        synchronize()
        self._clock.now()

    def __exit__(self, *error: object) -> None:
        self._clock._since = time.perf_counter()


class _Shared:
    """A step of a process that shares the GPU: beside others, or within a sample alone."""

    def __init__(self, clock: TrainingClock, locks: tuple[int, int], phase: int) -> None:
        self._clock, (self._gate, self._gpu), self._phase = clock, locks, phase

    def __enter__(self) -> None:
        if self._phase == 0:  # whoever holds the gate lets no step of another begin
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            fcntl.flock(self._gpu, fcntl.LOCK_EX)
        elif self._phase == SAMPLE_WARM:
            synchronize()
            self._clock._since = time.perf_counter()
        elif self._phase >= SAMPLE_WARM + SAMPLE_STEPS:
            fcntl.flock(self._gate, fcntl.LOCK_SH)
            fcntl.flock(self._gpu, fcntl.LOCK_SH)
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def __exit__(self, *error: object) -> None:
        if self._phase == SAMPLE_WARM + SAMPLE_STEPS - 1:
            synchronize()
            self._clock.count((time.perf_counter() - self._clock._since) / SAMPLE_STEPS)
        else:
            self._clock.count()
        if self._phase >= SAMPLE_WARM + SAMPLE_STEPS - 1:
            synchronize()  # else its kernels would run into another's sample
            fcntl.flock(self._gpu, fcntl.LOCK_UN)
            fcntl.flock(self._gate, fcntl.LOCK_UN)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
