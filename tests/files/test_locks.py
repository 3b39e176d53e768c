"""Locks between processes: one holder at a time, nothing left behind, nothing held by the dead."""

import os
import signal
import time

import pytest

from das3r_ns.files.locks import LockedError, only_holder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_a_process(work) -> int:
    number = os.fork()
    if number:
        return number
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_the_file_is_there_while_it_is_held_and_gone_afterwards(tmp_path):
    with only_holder(tmp_path / "a.lock"):
        assert os.listdir(tmp_path) == ["a.lock"]
        with pytest.raises(LockedError), only_holder(tmp_path / "a.lock", wait=False):
            pytest.fail("held twice")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError), only_holder(tmp_path / "a.lock", wait=False):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_lets_go(tmp_path):
    def hold():
        with only_holder(tmp_path / "a.lock"):
            time.sleep(60)

    child = in_a_process(hold)
    while not (tmp_path / "a.lock").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == ["a.lock"]
    with only_holder(tmp_path / "a.lock", wait=False):
        pass
    assert os.listdir(tmp_path) == []


def test_many_that_wait_for_one_another_are_never_two(tmp_path):
    """Each reads a number, waits, and writes it back one higher: two at a time would lose some."""
    (tmp_path / "count").write_text("0", encoding="utf-8")

    def count():
        for _ in range(60):
            with only_holder(tmp_path / "a.lock"):
                found = int((tmp_path / "count").read_text(encoding="utf-8"))
                time.sleep(0.0002)
                (tmp_path / "count").write_text(str(found + 1), encoding="utf-8")

    children = [in_a_process(count) for _ in range(5)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
    assert (tmp_path / "count").read_text(encoding="utf-8") == "300"
    assert os.listdir(tmp_path) == ["count"]
