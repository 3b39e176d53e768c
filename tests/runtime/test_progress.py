"""Stages note the seconds they took, for the table of a scene's cost."""

import time

import pytest

from das3r_ns.runtime import progress
from das3r_ns.runtime.progress import recorded_seconds, stage, timed, tracked


def test_seconds_are_noted_by_stage_without_the_counts():
    with recorded_seconds() as seconds:
        for _ in tracked(range(3), "Features of 3 frames", 3):
            time.sleep(0.02)
        with stage("Mapping", None):
            pass
        with stage("Mapping", None):
            pass
    assert set(seconds) == {"Features of frames", "Mapping", "total"}
    assert seconds["Features of frames"] >= 0.06
    assert seconds["total"] >= seconds["Features of frames"] + seconds["Mapping"] - 0.02


def test_nothing_is_noted_outside():
    with recorded_seconds() as seconds:
        pass
    with stage("Mapping", None):
        pass
    assert set(seconds) == {"total"}


def test_a_stage_is_not_counted_in_the_one_around_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])

    def work(seconds):
        now[0] += seconds

    with recorded_seconds() as seconds, timed("Cameras, the rest"):
        work(2)
        with stage("Following points of 3 frames", 3):
            work(3)
            with timed("Reading"):
                work(5)
        work(1)
    assert seconds == {"Reading": 5, "Following points of frames": 3, "Cameras, the rest": 3, "total": 11}


def test_a_stage_that_fails_is_noted_and_closed():
    with recorded_seconds() as seconds:
        with pytest.raises(ValueError, match="no cameras"), timed("Mapping"), timed("Matching"):
            raise ValueError("no cameras")
        with timed("Matching"):
            time.sleep(0.02)
    assert seconds["Matching"] >= 0.02
    assert seconds["Mapping"] < 0.02
