"""Work is done once, whole and in order of the caller's errors, however many threads there are."""

import time

import numpy as np
import pytest
import torch

from das3r_ns.runtime.parallel import in_parts, parallel_for


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    monkeypatch.setattr("os.cpu_count", lambda: 8)


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
