"""Processes that predict at once divide the cores; killed ones are not counted."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from das3r_ns.runtime import parallel, shared_cores
from das3r_ns.runtime.parallel import thread_count
from das3r_ns.runtime.shared_cores import processes_at_work, share_cores

HOLD = """
import sys, tempfile
from das3r_ns.runtime.shared_cores import share_cores
tempfile.tempdir = sys.argv[1]
with share_cores():
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def eight_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shared_cores, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(parallel, "available_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_another_process_takes_half_until_it_is_killed(tmp_path):
    with share_cores():
        assert thread_count() == 8
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "holds\n"
            assert processes_at_work() == 2
            assert thread_count() == 4
            other.kill()
            other.wait()
        assert processes_at_work() == 1
        assert thread_count() == 8
    assert files(tmp_path) == []


def test_who_does_not_predict_is_not_counted():
    assert processes_at_work() == 1
    with share_cores(), share_cores():
        assert processes_at_work() == 1


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing" / "folder"))
    with share_cores():
        assert thread_count() == 8
