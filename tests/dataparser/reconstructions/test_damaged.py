"""Files of other programs that are damaged, hostile or of another version: an error that names file, key and what was
expected, before anything is decoded or executed."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import written_reconstructions as written
from written_reconstructions import make_world

from das3r_ns.dataparser.reconstructions.assign import assign
from das3r_ns.dataparser.reconstructions.maps import depth_of_frames
from das3r_ns.dataparser.reconstructions.megasam import read_pth
from das3r_ns.dataparser.reconstructions.phones import is_record3d
from das3r_ns.dataparser.reconstructions.table import READERS, find_reader, read_reconstruction

N = 3


@pytest.fixture(scope="module")
def world():
    return make_world(N)


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def with_array(path: Path, **changed) -> Path:
    """The archive with other arrays; None takes one out."""
    with np.load(path) as old:
        arrays = {key: old[key] for key in old.files}
    arrays |= changed
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_missing_keys_are_named_with_the_file(world, tmp_path):
    path = with_array(written.megasam(world, tmp_path / "a"), images=None)
    with pytest.raises(ValueError, match=r"clip_sgd_cvd_hr\.npz lacks the array 'images' that MegaSaM writes"):
        read_reconstruction(path)
    path = written.depth_anything(world, tmp_path / "b")
    with_array(path / "exports" / "npz" / "results.npz", extrinsics=None)
    with pytest.raises(ValueError, match=r"results\.npz holds depth without cameras .*any-view or nested"):
        read_reconstruction(path)
    path = written.cut3r(world, tmp_path / "c")
    with_array(path / "camera" / "000001.npz", pose=None)
    with pytest.raises(ValueError, match=r"000001\.npz lacks the array 'pose' that CUT3R writes"):
        read_reconstruction(path)
    path = written.monst3r(world, tmp_path / "d")
    (path / "pred_intrinsics.txt").unlink()
    with pytest.raises(FileNotFoundError, match="pred_intrinsics"):
        read_reconstruction(path)


def test_other_shapes_and_kinds_are_named(world, tmp_path):
    path = written.megasam(world, tmp_path / "a")
    with_array(path, depths=np.ones((N, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"depths has the shape \(3, 4, 4\), and \(3, 328, 592\) is expected"):
        read_reconstruction(path)
    with_array(written.megasam(world, tmp_path / "b"), cam_c2w=np.ones((N, 4, 4), np.int32))
    with pytest.raises(ValueError, match="cam_c2w holds int32, and MegaSaM writes floats"):
        read_reconstruction(tmp_path / "b" / path.name)
    T = world.T.copy()
    T[1, 0, 3] = np.nan
    with_array(written.megasam(world, tmp_path / "c"), cam_c2w=T)
    with pytest.raises(ValueError, match="cam_c2w: entry 2 holds nan"):
        read_reconstruction(tmp_path / "c" / path.name)


def test_pickles_are_never_executed(world, tmp_path):
    trap = tmp_path / "executed"
    path = written.megasam(world, tmp_path / "a")
    with_array(path, cam_c2w=np.array([Evil(trap)] * N, object))
    with pytest.raises(ValueError, match=r"Python objects|shape"):
        read_reconstruction(path)
    cut3r = written.cut3r(world, tmp_path / "b")
    np.save(cut3r / "depth" / "000000.npy", np.array([[Evil(trap)]], object))
    with pytest.raises(ValueError, match="cannot be read as an array of numbers"):
        read_reconstruction(cut3r)
    import torch

    torch.save({"poses": Evil(trap)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        read_reconstruction(tmp_path / "evil.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(ValueError, match=r"not a file of torch 1\.6"):
        read_reconstruction(tmp_path / "old.pth")
    assert not trap.exists()


def test_sizes_are_checked_before_anything_is_decoded(world, tmp_path):
    """A header that promises a terabyte, in an archive of some hundred bytes."""
    path = written.megasam(world, tmp_path / "a")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 300000, 300000), }"
    header += b" " * (118 - len(header)) + b"\n"
    arrays = dict(np.load(path))
    with zipfile.ZipFile(path, "w") as file:
        for key, value in arrays.items():
            with file.open(f"{key}.npy", "w") as member:
                if key == "depths":
                    member.write(b"\x93NUMPY\x01\x00" + (119).to_bytes(2, "little") + header)
                else:
                    np.lib.format.write_array(member, value)
    with pytest.raises(ValueError, match="depths has the shape"):
        read_reconstruction(path)


def test_damaged_archives_are_named(world, tmp_path):
    path = written.megasam(world, tmp_path / "a")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert find_reader(path) is None  # nothing in it can be told
    record = written.record3d(world, tmp_path / "b")
    record.write_bytes(record.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"clip\.r3d: metadata cannot be read"):
        read_reconstruction(record)


def test_a_map_that_is_cut_short_is_named_when_it_is_read(world, tmp_path):
    path = written.cut3r(world, tmp_path / "a")
    victim = path / "depth" / "000002.npy"
    victim.write_bytes(victim.read_bytes()[:5000])
    import torch

    from das3r_ns.dataparser.matching_result import ClipFrames
    from das3r_ns.video.clip import Clip

    clip = Clip(torch.from_numpy(world.frames), 10.0, tuple(f"{i:05d}.png" for i in range(N)))
    given = read_reconstruction(path)
    assigned = assign(given, clip, ClipFrames(tuple(range(N)), N, clip.names), written.FRAME)
    with pytest.raises(ValueError, match=r"000002\.npy"):
        depth_of_frames(assigned, assigned.rows)


def test_versions_that_cannot_be_read_say_so(world, tmp_path):
    path = written.vipe(world, tmp_path / "a")
    (path / "intrinsics" / "clip_camera.txt").write_text("0: MEI\n1: MEI\n2: MEI\n")
    with pytest.raises(ValueError, match="lens MEI with 4 numbers, and PINHOLE"):
        read_reconstruction(path)
    window = tmp_path / "window"
    window.mkdir()
    np.save(window / "pts3d1_p0.npy", np.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="window-wise run of MonST3R"):
        read_reconstruction(window)
    several = written.vipe(world, tmp_path / "b")
    (several / "pose" / "other.npz").write_bytes((several / "pose" / "clip.npz").read_bytes())
    with pytest.raises(ValueError, match=r"results of 2 clips \(clip, other\)\. Name one"):
        read_reconstruction(several)
    assert read_reconstruction(several / "pose" / "clip.npz").tool == "ViPE"
    record = written.record3d(world, tmp_path / "c")
    with zipfile.ZipFile(record) as old:
        members = {name: old.read(name) for name in old.namelist()}
    metadata = json.loads(members["metadata"])
    del metadata["poses"]
    with zipfile.ZipFile(record, "w") as new:
        for name, data in (members | {"metadata": json.dumps(metadata).encode()}).items():
            new.writestr(name, data)
    with pytest.raises(ValueError, match="metadata lacks 'poses', which Record3D writes"):
        read_reconstruction(record)


def test_rows_of_text_are_named(tmp_path):
    path = tmp_path / "traj.txt"
    good = "0.0 0 0 0 0 0 0 1\n0.1 1 0 0 0 0 0 1\n0.2 1 0 0 0 0 0 1\n"
    path.write_text(good + "0.3 1 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"traj\.txt: row 4 has 6 numbers; 8 numbers \(t x y z qx qy qz qw\)"):
        read_reconstruction(path)
    path.write_text(good + "0.3 1 0 0 0 0 0 5\n")
    with pytest.raises(ValueError, match="quaternion of entry 4 has the length 5"):
        read_reconstruction(path)
    path.write_text(good + "0.2 1 0 0 0 0 0 1\n")
    with pytest.raises(ValueError, match="two of them at one time"):
        read_reconstruction(path)


def test_fifos_and_folders_in_the_place_of_files_do_no_harm(world, tmp_path):
    import os

    fifo = tmp_path / "results.npz"
    os.mkfifo(fifo)
    assert find_reader(fifo) is None
    path = written.monst3r(world, tmp_path / "a")
    (path / "frame_0001.npy").unlink()
    os.mkfifo(path / "frame_0001.npy")
    given = read_reconstruction(path)
    with pytest.raises(ValueError, match="is a FIFO"):
        given.depth(1)


def test_each_reader_has_a_place_in_the_docs():
    text = (Path(__file__).parents[3] / "docs" / "bring_your_own.md").read_text(encoding="utf-8")
    for reader in READERS:
        for tool in reader.tool.replace(" (streaming)", "").replace(" trajectory", "").split(" or "):
            assert tool in text


def test_an_archive_that_holds_no_tensors_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "of a trip")
    with pytest.raises(ValueError, match=r"other\.pth cannot be read as tensors: .*archive") as refused:
        read_pth(path)
    assert "\n" not in str(refused.value)


def test_record3d_is_known_by_what_the_archive_holds(tmp_path):
    def archive(name: str, *members: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for member in members:
                file.writestr(member, "")
        return tmp_path / name

    for suffix in ("r3d", "R3D", "zip"):
        assert is_record3d(archive(f"whole.{suffix}", "metadata", "rgbd/0.jpg"))
        assert not is_record3d(archive(f"bare.{suffix}", "metadata"))
        assert not is_record3d(archive(f"other.{suffix}", "rgbd/0.jpg"))
    assert not is_record3d(archive("whole.docx", "metadata", "rgbd/0.jpg"))
    assert not is_record3d(tmp_path / "missing.r3d")
    (tmp_path / "folder.r3d").mkdir()
    assert not is_record3d(tmp_path / "folder.r3d")
    (tmp_path / "cut.r3d").write_bytes(b"PK")
    (tmp_path / "cut.zip").write_bytes(b"PK")
    assert is_record3d(tmp_path / "cut.r3d")  # its reader says what is wrong
    assert not is_record3d(tmp_path / "cut.zip")
