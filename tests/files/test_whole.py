"""Files that are whole or not there: interruptions, full disks, killed processes."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from das3r_ns.files import whole
from das3r_ns.files.whole import (
    DiskFullError,
    check_room,
    claimed_folder,
    sweep,
    telling_of_full_disk,
    whole_file,
    write_bytes_whole,
    write_text_whole,
)


def half_written(path: Path, error: BaseException) -> None:
    with whole_file(path, what="the splat") as part:
        part.write_text("half", encoding="utf-8")
        raise error


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    with whole_file(path) as part:
        part.write_text("half")
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_the_old_file_survives_an_error_and_nothing_is_left(tmp_path):
    path = tmp_path / "splat.ply"
    write_text_whole(path, "old")
    with pytest.raises(KeyboardInterrupt):
        half_written(path, KeyboardInterrupt())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["splat.ply"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
    ids=["disk", "quota", "torch"],
)
def test_a_full_disk_is_one_sentence_with_the_folder_and_the_old_file_survives(tmp_path, error):
    path = tmp_path / "splat.ply"
    write_bytes_whole(path, b"old")
    with pytest.raises(DiskFullError, match=rf"no room for the splat: {tmp_path} has \d+ MiB left. Make room"):
        half_written(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["splat.ply"]


def test_an_error_that_is_not_about_room_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), telling_of_full_disk(tmp_path, "x"):
        raise RuntimeError("something else")


def test_a_link_stays_a_link(tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("old")
    (tmp_path / "link.txt").symlink_to(real)
    write_text_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_what_is_not_a_file_is_never_replaced(tmp_path, kind):
    path = tmp_path if kind == "folder" else Path(os.devnull)
    with pytest.raises(FileExistsError, match="is there and is not a file"):
        write_text_whole(path, "x")
    assert not path.is_file()


def test_room_is_asked_for_in_a_folder_that_is_yet_to_be_made(tmp_path):
    folder = tmp_path / "a" / "b"
    check_room(folder, 1, "the scene", "Make room.")
    with pytest.raises(DiskFullError, match=r"a/b has \d+ MiB left, and the scene may take \d+ MiB. Make room."):
        check_room(folder, 10**18, "the scene", "Make room.")


CLAIM = """
import sys, time
from pathlib import Path
from das3r_ns.files.whole import claimed_folder
with claimed_folder(Path(sys.argv[1]), "das3r-map-") as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "CLAIM_SECONDS", 0.0)
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        assert sweep(tmp_path, "das3r-map-") == []
        child.kill()
    assert (folder / "half").exists()
    assert sweep(tmp_path, "das3r-map-") == [folder]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_an_earlier_release_is_swept_when_it_is_old(tmp_path):
    new, old, link, other = (tmp_path / f"das3r-map-{name}" for name in ("new", "old", "link", "file"))
    new.mkdir()
    old.mkdir()
    (old / "features.db").write_text("x")
    past = time.time() - 2 * whole.UNCLAIMED_SECONDS
    os.utime(old, (past, past))
    link.symlink_to(tmp_path)
    other.write_text("x")
    os.utime(other, (past, past))
    assert sweep(tmp_path, "das3r-map-") == [old]
    assert new.exists()
    assert link.is_symlink()
    assert other.exists()


def test_a_claimed_folder_goes_at_the_end(tmp_path):
    with claimed_folder(tmp_path, "a-") as folder:
        (folder / "b").mkdir()
    assert list(tmp_path.iterdir()) == []
