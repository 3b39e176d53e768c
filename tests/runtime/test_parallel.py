"""Work is done once, whole and in order of the caller's errors, however many threads there are."""

import threading
import time

import numpy as np
import pytest
import torch

from das3r_ns.runtime import parallel
from das3r_ns.runtime.parallel import in_parts, parallel_for


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    monkeypatch.setattr(parallel, "available_cores", lambda: 8)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_all_is_done_once(count):
    done, parts = np.zeros(count), np.zeros(count)

    def one(i: int) -> None:
        done[i] += 1

    def part(first: int, last: int) -> None:
        parts[first:last] += 1

    parallel_for(one, count)
    in_parts(part, count)
    assert (done == 1).all()
    assert (parts == 1).all()


@pytest.mark.usefixtures("threads")
def test_an_error_is_raised_and_stops_the_rest():
    done = []

    def work(i: int) -> None:
        if i == 2:
            raise ValueError("two")
        time.sleep(0.002)  # all of them would take seconds
        done.append(i)

    with pytest.raises(ValueError, match="two"):
        parallel_for(work, 5_000)
    assert len(done) < 1_000


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("worth_it", [False, True])
def test_short_work_stays_with_the_caller_and_long_work_is_divided(monkeypatch, worth_it):
    monkeypatch.setattr(parallel, "MIN_PARALLEL_S", 0.0 if worth_it else 1e9)
    monkeypatch.setattr(parallel, "MIN_PART_S", 1e-9)
    ranges, threads_seen = [], set()

    def part(first: int, last: int) -> None:
        time.sleep(0.001)  # the others get their turn
        ranges.append((first, last))
        threads_seen.add(threading.get_ident())

    in_parts(part, 1000)
    assert sorted(i for first, last in ranges for i in range(first, last)) == list(range(1000))
    if worth_it and torch.get_num_threads() > 1:
        assert len(ranges) > 10
        assert len(threads_seen) == torch.get_num_threads()
    else:
        assert len(ranges) <= 2
        assert threads_seen == {threading.get_ident()}


@pytest.mark.usefixtures("threads")
def test_work_within_work_runs_on_its_own_thread():
    inner = []
    parallel_for(lambda i: parallel_for(lambda j: inner.append((i, j, threading.get_ident())), 4), 6)
    assert sorted((i, j) for i, j, _ in inner) == [(i, j) for i in range(6) for j in range(4)]
    for i in range(6):
        assert len({thread for k, _, thread in inner if k == i}) == 1


@pytest.mark.usefixtures("threads")
def test_an_error_of_another_thread_reaches_the_caller():
    caller = threading.get_ident()

    def work(i: int) -> None:
        time.sleep(0.001)
        if torch.get_num_threads() == 1 or threading.get_ident() != caller:
            raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        parallel_for(work, 50)
