"""Stages note the seconds they took, for the table of a scene's cost."""

import time

from das3r_ns.runtime.progress import recorded_seconds, stage, tracked


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
