"""What a benchmark measures, and what stands below its table."""

import os

import pytest

from das3r_ns.evaluation.bench.protocol import BenchProtocol
from das3r_ns.evaluation.bench.sets import FRAMES, FrameChoice


def test_a_system_that_does_not_say_which_cores_are_ours_is_described(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")  # macOS and Windows have none
    monkeypatch.delattr("os.sysconf")  # nor has Windows this
    notes = BenchProtocol().notes("geometric", (), FRAMES["davis"])
    assert notes["machine"].startswith(f"{os.cpu_count()} CPU cores (")


def test_every_so_many_frames_of_those_that_the_protocol_takes():
    assert BenchProtocol(every=2).frames_of("tum-dynamics") == FrameChoice(90, 6)
    assert BenchProtocol(max_frames=7).frames_of("davis") == FrameChoice(7)
    with pytest.raises(ValueError, match="--every must be 1"):
        BenchProtocol(every=0).frames_of("davis")
