"""`das3r download` against a server on loopback that serves small archives of the publishers' layout and misbehaves:
it cuts connections, ignores Range, changes the file, answers 404 and 500, and announces a wrong checksum."""

import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from archives import tgz_of, zip_of
from misbehaving_server import Server

from das3r_ns.evaluation import download as command
from das3r_ns.evaluation.download import SETS, download
from das3r_ns.evaluation.unpack import UnpackError, unpack
from das3r_ns.files.download import DownloadError, Patience, fetch

HASTY = Patience(attempts=3, first_wait_s=0.01, timeout_s=5.0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(command, "PATIENCE", HASTY)
    running = Server()
    yield running
    running.close()


DATA = bytes(range(256)) * 40  # 10240 bytes


def test_a_file_arrives_whole_and_leaves_nothing_else_behind(server, tmp_path):
    server.files["a.bin"] = DATA
    seen = []
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY, progress=lambda *p: seen.append(p))
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert seen[-1] == (len(DATA), len(DATA))


def test_a_cut_connection_goes_on_where_it_stopped(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["cut", "cut"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == [None, "bytes=5120-", "bytes=7680-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["cut", "500", "500", "500"]
    with pytest.raises(
        DownloadError, match=r"failed 3 times in a row .*500.* 5120 bytes are kept .*run the same command"
    ):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert not (tmp_path / "a.bin").exists()
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert server.requests[-1] == ("a.bin", "bytes=5120-")


def test_a_server_that_ignores_range_starts_it_over(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["cut", "ignore range"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_piece_from_the_wrong_place_is_not_pasted_in(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["cut", "wrong piece"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_that_changed_between_two_attempts_is_taken_anew(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["cut", "500", "500", "500"]
    with pytest.raises(DownloadError):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    server.files["a.bin"] = DATA[::-1]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA[::-1]


def test_a_part_that_is_already_the_whole_is_recognised(server, tmp_path):
    server.files["a.bin"] = DATA
    (tmp_path / "a.bin.part").write_bytes(DATA)
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    (tmp_path / "a.bin").unlink()
    (tmp_path / "a.bin.part").write_bytes(DATA + b"left over from something longer")
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_passing_error_of_the_server_is_waited_out_and_404_is_not(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["503", "500"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    with pytest.raises(DownloadError, match="answers 404"):
        fetch(f"{server.url}/b.bin", tmp_path / "b.bin", patience=HASTY)
    assert [name for name, _ in server.requests].count("b.bin") == 1


def test_no_server_at_all(server, tmp_path):
    server.close()
    with pytest.raises(DownloadError, match="failed 3 times"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)


def test_a_wrong_checksum_leaves_no_file(server, tmp_path):
    server.files["a.bin"] = DATA
    right = hashlib.sha256(DATA).hexdigest()
    with pytest.raises(DownloadError, match=f"has checksum {right} where {'0' * 64} is expected"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", "0" * 64, HASTY)
    assert list(tmp_path.iterdir()) == []
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", right.upper(), HASTY)
    with pytest.raises(DownloadError, match=r"a\.bin is there but its checksum"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", "0" * 64, HASTY)


def test_the_checksum_that_the_hub_announces_with_its_redirect_is_checked(server, tmp_path):
    server.files["a.bin"] = DATA
    server.headers["X-Linked-ETag"] = '"' + "0" * 64 + '"'
    server.faults = ["redirect"]
    with pytest.raises(DownloadError, match="has checksum"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    server.headers["X-Linked-ETag"] = f'"{hashlib.sha256(DATA).hexdigest()}"'
    server.faults = ["redirect"]
    fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_two_processes_do_not_write_the_same_file(server, tmp_path):
    server.files["a.bin"] = DATA
    server.faults = ["slow"]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
        assert server.slow.wait(10)
        with pytest.raises(DownloadError, match="another process is fetching"):
            fetch(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HASTY)
        server.go_on.set()
        first.result(10)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert len(server.requests) == 1


def test_davis_comes_as_bench_reads_it(server, tmp_path, capsys):
    from das3r_ns.datasets.davis import davis_root, davis_sequences

    server.files["DAVIS-2017-trainval-480p.zip"] = zip_of(
        {"DAVIS/JPEGImages/480p/swan/00000.jpg": b"image", "DAVIS/Annotations/480p/swan/00000.png": b"mask"}
    )
    folder = download("davis", out=tmp_path, mirror=server.url)
    root = davis_root(folder)
    assert root is not None
    assert davis_sequences(root) == ["swan"]
    record = json.loads((folder / ".das3r-download" / "2017.json").read_text())
    assert record["unpacked_files"] == 2
    assert record["files"][0]["sha256"] == hashlib.sha256(server.files["DAVIS-2017-trainval-480p.zip"]).hexdigest()
    assert "for research" in capsys.readouterr().out  # the licence is printed
    assert not list(folder.rglob("*.zip"))
    asked = len(server.requests)
    download("davis", out=tmp_path, mirror=server.url)
    assert len(server.requests) == asked  # nothing is fetched twice


def test_the_three_archives_of_sintel_fill_one_tree_and_an_interrupted_set_goes_on(server, tmp_path):
    names = [archive.urls[0].rsplit("/", 1)[1] for archive in SETS["sintel"].archives]
    kinds = ("final", "flow", "camdata_left")
    for name, kind in zip(names, kinds):
        server.files[name] = zip_of({f"training/{kind}/alley_1/frame_0001": kind.encode()})
    missing = server.files.pop(names[2])
    with pytest.raises(DownloadError, match=f"fetch {names[2]} in another way"):
        download("sintel", out=tmp_path, mirror=server.url)
    server.files[names[2]] = missing
    folder = download("sintel", out=tmp_path, mirror=server.url)
    assert sorted(p.name for p in (folder / "training").iterdir()) == sorted(kinds)
    assert [name for name, _ in server.requests].count(names[0]) == 1


def test_tum_sequences_can_be_fetched_one_by_one(server, tmp_path):
    server.files["rgbd_dataset_freiburg3_walking_xyz.tgz"] = tgz_of(
        {"rgbd_dataset_freiburg3_walking_xyz/rgb.txt": b"1.0 rgb/1.png"}
    )
    folder = download("tum-dynamics", out=tmp_path, only=("walking_xyz",), mirror=server.url, keep_archives=True)
    assert (folder / "rgbd_dataset_freiburg3_walking_xyz" / "rgb.txt").read_bytes() == b"1.0 rgb/1.png"
    assert (folder / ".das3r-download" / "rgbd_dataset_freiburg3_walking_xyz.tgz").is_file()
    with pytest.raises(ValueError, match=r"no archive 'walking'.*sitting_halfsphere"):
        download("tum-dynamics", out=tmp_path, only=("walking",), mirror=server.url)


def test_an_archive_cut_into_parts_is_read_as_one(server, tmp_path):
    content = {f"train/scene/{i:03d}.bin": hashlib.sha256(bytes([i])).digest() * 50 for i in range(20)}
    whole = tgz_of(content)
    cuts = [0, 700, 701, len(whole) - 5, len(whole)]
    for letter, a, b in zip(("aa", "ab", "ac", "ad"), cuts, cuts[1:]):
        server.files[f"train.tar.gz.part{letter}"] = whole[a:b]
    folder = download("pointodyssey", out=tmp_path, only=("train",), mirror=server.url)
    for name, data in content.items():
        assert (folder / name).read_bytes() == data


def test_weights_from_a_mirror_lie_as_the_network_reads_them(server, tmp_path):
    server.files |= {"config.json": b"{}", "model.safetensors": DATA}
    server.faults = ["", "cut"]
    folder = download("weights", out=tmp_path, mirror=server.url)
    assert (folder / "model.safetensors").read_bytes() == DATA


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt", "..\\outside.txt"])
@pytest.mark.parametrize("pack", [zip_of, tgz_of])
def test_an_archive_that_reaches_out_of_its_folder_is_refused_whole(tmp_path, name, pack):
    (tmp_path / "evil").write_bytes(pack({"fine.txt": b"1", name: b"2"}))
    with pytest.raises(UnpackError, match="leads out of its folder"):
        unpack([tmp_path / "evil"], tmp_path / "inside")
    assert list((tmp_path / "inside").iterdir()) == []
    assert not (tmp_path / "outside.txt").exists()


def test_links_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        member = tarfile.TarInfo("file")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))
    assert unpack([tmp_path / "a.tgz"], tmp_path / "inside") == 1
    assert [p.name for p in (tmp_path / "inside").iterdir()] == ["file"]


@pytest.mark.parametrize("pack", [zip_of, tgz_of])
def test_a_damaged_archive_leaves_nothing(tmp_path, pack):
    whole = pack({"a.bin": hashlib.sha256(b"1").digest() * 200, "b.bin": hashlib.sha256(b"2").digest() * 200})
    (tmp_path / "damaged").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnpackError, match="damaged"):
        unpack([tmp_path / "damaged"], tmp_path / "inside")
    assert list((tmp_path / "inside").iterdir()) == []


def test_an_archive_that_does_not_fit_on_the_disk_is_said_to(tmp_path, monkeypatch):
    import shutil

    (tmp_path / "a.zip").write_bytes(zip_of({"a.bin": DATA}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(UnpackError, match=r"has 0\.0 GB free.*--out"):
        unpack([tmp_path / "a.zip"], tmp_path / "inside")
