"""The table and the clock of the benchmark of quality over time."""

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_found():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("quality_over_time")


@pytest.fixture(scope="module")
def clocks():
    return importlib.import_module("training_clock")


def test_means_are_over_the_clips_that_every_method_has(bench):
    def row(clip, method, mark, psnr):
        return bench.Row(clip, method, mark, mark + 1, 100, 200, 5, psnr, 0.9, None, None, 1.0)

    rows = [row("a", "das3r", 10, 30.0), row("b", "das3r", 10, 20.0), row("a", "splatfacto", 10, 28.0)]
    rows += [row("a", "das3r", 60, 31.0), row("b", "das3r", 60, 21.0)]
    text = bench.table(rows)
    assert "| das3r | 30.00 (1) | 26.00 (2) |" in text, "clip b at 10 s is of one method only"
    assert "| splatfacto | 28.00 (1) |  |" in text
    assert "30.00 / 0.900 / - (11, 100)" in text
    assert "alone" not in text
    assert "3 trainings at a time" in bench.table(rows, 3)


def test_steps_before_the_first_sample_are_counted_by_it(clocks, tmp_path):
    clock = clocks.TrainingClock(str(tmp_path / "locks"))
    for _ in range(3):
        clock.count()
    assert clock.now() == 0.0
    clock.count(0.5)
    assert clock.now() == pytest.approx(2.0)
    clock.count()
    clock.count(0.1)
    assert clock.now() == pytest.approx(2.6)
    assert clocks.phase_of(100) == clocks.phase_of(500) == 0
    assert not clock.may_stop(100)
    assert clock.may_stop(100 + clocks.SAMPLE_WARM + clocks.SAMPLE_STEPS)
    clock.end()


def test_nobody_steps_while_another_samples(clocks, tmp_path):
    one, other = (clocks.TrainingClock(str(tmp_path / "locks")) for _ in range(2))
    stepped = threading.Event()

    def step():
        with other.step(50):
            stepped.set()

    with one.step(50), other.step(50):
        pass  # steps that are not sampled run beside one another
    with one.step(100):
        pass
    beside = threading.Thread(target=step)
    beside.start()
    assert not stepped.wait(0.2)
    for number in range(101, 100 + clocks.SAMPLE_WARM + clocks.SAMPLE_STEPS):
        with one.step(number):
            time.sleep(0.002)
    assert stepped.wait(5)
    beside.join()
    assert one.now() > 0.002 * clocks.SAMPLE_STEPS  # what was slept through; a busy machine adds to it
    one.end()
    with other.step(100):  # what a clock held is free at its end
        other.end()
