"""Checkpoints: whole or not there, the newest readable one, no code."""

import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.files.whole import DiskFullError
from das3r_ns.runs import checkpoints
from das3r_ns.runs.checkpoints import (
    CheckpointError,
    checkpoint_path,
    checkpoint_steps,
    read_checkpoint,
    read_newest,
    save_checkpoint,
)


def state(step: int, count: int = 50) -> dict:
    means = torch.arange(3.0 * count).reshape(count, 3) + step
    return {"step": step, "pipeline": {"_model.gauss_params.means": means}, "optimizers": {}, "scalers": {}}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run" / "nerfstudio_models"


def test_a_run_keeps_its_last_two_checkpoints(folder):
    for step in (9, 19, 29):
        save_checkpoint(state(step), folder, step)
    assert checkpoint_steps(folder) == [29, 19]
    assert sorted(os.listdir(folder.parent)) == ["nerfstudio_models"]
    save_checkpoint(state(39), folder, 39, keep=None)
    assert checkpoint_steps(folder) == [39, 29, 19]


def test_the_bytes_are_those_that_torch_writes_at_its_place(folder, tmp_path):
    save_checkpoint(state(9), folder, 9)
    torch.save(state(9), tmp_path / "step-000000009.ckpt")
    assert checkpoint_path(folder, 9).read_bytes() == (tmp_path / "step-000000009.ckpt").read_bytes()


def test_the_newest_that_can_be_read_is_taken_and_the_skipped_are_named(folder):
    for step in (9, 19, 29):
        save_checkpoint(state(step), folder, step, keep=None)
    checkpoint_path(folder, 29).write_bytes(b"")
    half = checkpoint_path(folder, 19).read_bytes()
    checkpoint_path(folder, 19).write_bytes(half[: len(half) // 2])
    step, loaded, skipped = read_newest(folder)
    assert (step, loaded["step"]) == (9, 9)
    assert [reason.split(" is ")[0] for reason in skipped] == [str(checkpoint_path(folder, s)) for s in (29, 19)]
    assert "it is empty" in skipped[0]


def test_none_that_can_be_read_is_an_error_that_names_all(folder):
    with pytest.raises(CheckpointError, match=r"holds no checkpoint .step-.*never came to its first save"):
        read_newest(folder)
    for step in (9, 19):
        save_checkpoint(state(step), folder, step)
        checkpoint_path(folder, step).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no checkpoint that can be read.*000019.ckpt.*000009.ckpt"):
        read_newest(folder)


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(folder, monkeypatch):
    save_checkpoint(state(9), folder, 9)
    before = checkpoint_path(folder, 9).read_bytes()

    def full(value: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFullError, match=r"no room for the checkpoint of step 20: .*run has \d+ MiB left"):
        save_checkpoint(state(19), folder, 19)
    assert checkpoint_steps(folder) == [9]
    assert checkpoint_path(folder, 9).read_bytes() == before
    assert sorted(os.listdir(folder.parent)) == ["nerfstudio_models"]


class Runs:
    """Pickles to a call."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def rezip(path: Path, change) -> None:
    """Write a checkpoint again with its entries changed by `change(name, content) -> content`."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def in_pickle(change):
    return lambda name, content: change(content) if name.endswith("data.pkl") else content


def _code(kind: str, path: Path, mark: Path) -> None:
    """A checkpoint that would write `mark` when it is unpickled."""
    if kind == "eval":
        torch.save({**state(9), "x": Runs(eval, f"open({str(mark)!r}, 'w').close()")}, path)
    elif kind == "os.system":
        torch.save({**state(9), "x": Runs(os.system, f"touch {mark}")}, path)
    elif kind == "in the pipeline":
        torch.save({**state(9), "pipeline": {"_model.x": Runs(os.system, f"touch {mark}")}}, path)
    elif kind == "a module's own function":
        torch.save({**state(9), "x": Runs(shutil.copy, __file__, str(mark))}, path)
    elif kind == "numpy object array":
        torch.save({**state(9), "x": np.array([Runs(os.system, f"touch {mark}")], dtype=object)}, path)
    elif kind == "pickle alone":
        path.write_bytes(pickle.dumps({**state(9), "x": Runs(os.system, f"touch {mark}")}))
    elif kind == "legacy torch":
        torch.save({**state(9), "x": Runs(os.system, f"touch {mark}")}, path, _use_new_zipfile_serialization=False)
    elif kind == "torchscript":
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    elif kind == "a whole module":
        torch.save(torch.nn.Linear(1, 1), path)
    elif kind == "by name only":
        torch.save(state(9), path)
        rezip(path, in_pickle(lambda _: b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."))


@pytest.mark.parametrize(
    "kind",
    ["eval", "os.system", "in the pipeline", "a module's own function", "numpy object array", "pickle alone",
     "legacy torch", "torchscript", "a whole module", "by name only"],
)  # fmt: skip
def test_code_in_a_checkpoint_is_called_what_it_is_and_not_executed(folder, tmp_path, kind):
    mark = tmp_path / "executed"
    path = checkpoint_path(folder, 9)
    folder.mkdir(parents=True)
    _code(kind, path, mark)
    with pytest.raises(CheckpointError, match=r"holds code \(.*\); nothing was loaded"):
        read_checkpoint(path)
    assert not mark.exists()


def _damage(kind: str, path: Path) -> None:
    torch.save(state(9), path)
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "without its end":
        path.write_bytes(content[:-30])
    elif kind == "one byte":
        place = content.index(struct.pack("<f", 10.0)) + 1
        path.write_bytes(content[:place] + b"\xaa" + content[place + 1 :])
    elif kind == "text":
        path.write_text("<html>404</html>", encoding="utf-8")
    elif kind == "another archive":
        path.unlink()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "x")
    elif kind == "compressed":
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data if not name.endswith("data/0") else bytes(10**8))
    elif kind == "pickle cut short":
        rezip(path, in_pickle(lambda content: content[:40]))
    elif kind == "storage missing":
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in entries.items():
                if "/data/" not in name:
                    archive.writestr(name, data)
    elif kind == "a tensor as large as no memory":
        torch.save({**state(9), "pipeline": {"_model.gauss_params.means": torch.zeros(1).expand(10**11, 3)}}, path)
    elif kind == "not finite":
        bad = state(9)
        bad["pipeline"]["_model.gauss_params.means"][3, 1] = float("nan")
        torch.save(bad, path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "no step":
        torch.save({"pipeline": {}}, path)
    elif kind == "step is text":
        torch.save({**state(9), "step": "nine"}, path)
    elif kind == "pipeline is a list":
        torch.save({**state(9), "pipeline": [1]}, path)
    elif kind == "sparse":
        torch.save({**state(9), "pipeline": {"_model.x": torch.eye(3).to_sparse()}}, path)
    elif kind == "nested":
        nested: list = []
        for _ in range(200):
            nested = [nested]
        torch.save({**state(9), "x": nested}, path)
    elif kind == "a folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    ["empty", "half", "without its end", "one byte", "text", "another archive", "compressed", "pickle cut short",
     "storage missing", "a tensor as large as no memory", "not finite", "a list", "no step", "step is text",
     "pipeline is a list", "sparse", "nested", "a folder"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(folder, kind):
    save_checkpoint(state(4), folder, 4)
    path = checkpoint_path(folder, 9)
    _damage(kind, path)
    with pytest.raises(CheckpointError, match=f"{path.name} (is|has|holds|was|cannot)"):
        read_checkpoint(path)
    step, _, skipped = read_newest(folder)
    assert (step, len(skipped)) == (4, 0 if kind == "a folder" else 1)


def test_numbers_of_numpy_in_a_checkpoint_are_read(folder):
    folder.mkdir(parents=True)
    torch.save({**state(9), "schedulers": {"lr": np.float64(0.5)}}, checkpoint_path(folder, 9))
    assert read_checkpoint(checkpoint_path(folder, 9))["schedulers"]["lr"] == 0.5


def test_what_is_not_a_checkpoint_in_its_folder_is_left_alone(folder):
    save_checkpoint(state(9), folder, 9)
    for name in ("step-x.ckpt", "notes.txt", "step-000000019.ckpt.part"):
        (folder / name).write_text("x")
    assert checkpoint_steps(folder) == [9]
    assert checkpoints.read_newest(folder)[0] == 9
