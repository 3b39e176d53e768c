"""A disk that fills up during a write: the old file stays, one sentence, nothing half written; for each kind of result.

The limit on the size of a file makes every writer, in Python or in C++, meet what a used-up quota is to it.
"""

import ast
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import scene_from_truth

import das3r_ns
from das3r_ns.evaluation.figures import Sheet, draw_paths
from das3r_ns.export.scenes import export_scene
from das3r_ns.files.json_files import write_json
from das3r_ns.files.whole import DiskFullError, write_bytes_whole, write_text_whole
from das3r_ns.runs.checkpoints import checkpoint_path, save_checkpoint
from das3r_ns.synthetic import SyntheticConfig
from das3r_ns.video.writing import video_writer

NOISE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)


def _video(path: Path) -> None:
    with video_writer(path, 10.0) as write:
        for i in range(30):
            write(np.roll(NOISE, 7 * i, axis=1))


def _sheet(path: Path) -> None:
    sheet = Sheet(("a",))
    for _ in range(4):
        sheet.add("frame", [NOISE])
    sheet.save(path)


def _checkpoint(path: Path) -> None:
    save_checkpoint({"step": 9, "pipeline": {"x": torch.arange(100_000.0)}}, path.parent, 9)


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "report": ("metrics.json", lambda path: write_json(path, list(range(100_000)))),
    "table": ("table.md", lambda path: write_text_whole(path, "x" * 100_000)),
    "array": ("mask.png", lambda path: write_bytes_whole(path, bytes(100_000))),
    "video": ("static.mp4", _video),
    "figure": ("path.png", lambda path: draw_paths({}, torch.eye(4).repeat(30, 1, 1), path)),
    "sheet": ("masks.jpg", _sheet),
    "checkpoint": (checkpoint_path(Path(), 9).name, _checkpoint),
}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_old_result_survives_a_full_disk_and_nothing_is_left(tmp_path, kind):
    name, write = WRITERS[kind]
    path = tmp_path / "results" / name
    write(path)
    whole = path.read_bytes()
    path.write_bytes(b"old")
    with files_up_to(8192), pytest.raises(DiskFullError, match=r"no room for .*: .* has \d+ MiB left. Make room"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [name]
    assert sorted(os.listdir(tmp_path)) == ["results"]
    write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("target", ["brush", "colmap", "nerfstudio"])
def test_an_export_that_finds_no_room_leaves_the_earlier_one(tmp_path, target):
    """pycolmap itself writes on where there is no room, and says nothing."""
    config = SyntheticConfig(num_frames=2, height=48, width=64)
    scene, out = scene_from_truth(tmp_path / "walk", config), tmp_path / "results" / "export"
    export_scene(scene, target, out)
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    largest = max(len(content) for content in whole.values())
    with (
        files_up_to(largest - 1),
        pytest.raises(DiskFullError, match=r"no room for .*or choose another --out"),
    ):
        export_scene(scene, target, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole
    assert os.listdir(out.parent) == ["export"]


# Every write of the package, by what becomes of it when the disk is full.
WHOLE = "written beside its place, by `whole_file` or by hand, and moved there when it is whole"
IN_FOLDER = "part of a folder that gets its name when it is whole"
TEMPORARY = "in a temporary folder that is removed in any case"
PROBE = "written to see whether it can be"
GROWS = "a log, or a download that goes on where it stopped"
CACHE = "kept to be made again"
IN_MEMORY = "into memory; what is made of it is written by others of this list"
NOWHERE = "to the null device"
OWN = "of a user's own making anew: a synthetic clip, a training of a network from the beginning"

WRITES = {
    ("dataparser/reconstructions/vipe.py", "_exr", "NamedTemporaryFile"): TEMPORARY,
    ("editing/transfer.py", "take_over_edits", "copytree"): IN_FOLDER,
    ("export/scenes.py", "_check_model", "open"): IN_FOLDER,
    ("export/scenes.py", "_copy", "copyfile"): IN_FOLDER,
    ("export/scenes.py", "_write_tum", "write_text"): IN_FOLDER,
    ("export/scenes.py", "export_scene", "write_text"): IN_FOLDER,
    ("report/video.py", "encode_video", "open"): IN_MEMORY,
    ("scene/edit_store.py", "add", "write_bytes"): IN_FOLDER,
    ("dataparser/cache_folder.py", "check_writable", "TemporaryFile"): PROBE,
    ("evaluation/bench/launch.py", "_run_process", "open"): GROWS,
    ("evaluation/bench/meter.py", "__init__", "write_text"): PROBE,
    ("evaluation/bench/prepared.py", "_save", "write_bytes"): IN_FOLDER,
    ("evaluation/bench/prepared.py", "prepare", "savetxt"): IN_FOLDER,
    ("evaluation/bench/table.py", "write", "open"): WHOLE,
    ("evaluation/figures.py", "draw_calibration", "savefig"): WHOLE,
    ("evaluation/figures.py", "draw_paths", "savefig"): WHOLE,
    ("evaluation/figures.py", "draw_psnr", "savefig"): WHOLE,
    ("evaluation/unpack.py", "_write", "copyfileobj"): IN_FOLDER,
    ("evaluation/unpack.py", "_write", "open"): IN_FOLDER,
    ("evaluation/unpack.py", "unpack", "mkdtemp"): TEMPORARY,
    ("files/download.py", "_write_validator", "write_text"): GROWS,
    ("files/download.py", "fetch", "open"): GROWS,
    ("files/whole.py", "check_output", "TemporaryFile"): PROBE,
    ("files/whole.py", "claimed_folder", "mkdtemp"): TEMPORARY,
    ("files/whole.py", "write_bytes_whole", "write_bytes"): WHOLE,
    ("files/whole.py", "write_text_whole", "write_text"): WHOLE,
    ("machine/kernels.py", "_note", "write_text"): CACHE,
    ("machine/kernels.py", "_run_build", "open"): GROWS,
    ("machine/toolkit.py", "_link", "copy2"): CACHE,
    ("machine/toolkit.py", "_link", "copytree"): CACHE,
    ("machine/toolkit.py", "_link", "symlink_to"): CACHE,
    ("predictor/cameras/colmap_features.py", "match_features", "write_text"): TEMPORARY,
    ("predictor/masks/refiners/sam2.py", "_refine_part", "imwrite"): TEMPORARY,
    ("predictor/network/weights.py", "save_weights", "write_text"): WHOLE,
    ("predictor/training/data/labelling.py", "_write_image", "write_bytes"): WHOLE,
    ("predictor/training/data/labelling.py", "label_sequence", "write_text"): IN_FOLDER,
    ("predictor/training/features/store.py", "_write", "write_bytes"): WHOLE,
    ("predictor/training/features/store.py", "open", "write_text"): WHOLE,
    ("predictor/training/flow/train.py", "__init__", "write_text"): OWN,
    ("predictor/training/flow/train.py", "_log", "open"): GROWS,
    ("predictor/training/flow/train.py", "_save", "save"): WHOLE,
    ("predictor/training/flow/train.py", "_validate_and_save", "imwrite"): OWN,
    ("predictor/training/loop/checkpoint.py", "save_checkpoint", "save"): WHOLE,
    ("predictor/training/loop/logs.py", "_write", "open"): GROWS,
    ("predictor/training/loop/train.py", "_starting_network", "write_text"): OWN,
    ("runs/checkpoints.py", "save_checkpoint", "save"): WHOLE,
    ("runs/resuming.py", "save_rest", "save"): WHOLE,
    ("runtime/failures.py", "_keep_traceback", "write_text"): CACHE,
    ("runtime/failures.py", "reader_left", "open"): NOWHERE,
    ("scene/writing.py", "_write_image", "write_bytes"): IN_FOLDER,
    ("scene/writing.py", "_write_points", "open"): IN_FOLDER,
    ("scene/writing.py", "write", "save"): IN_FOLDER,
    ("scene/writing.py", "_written_whole", "mkdtemp"): TEMPORARY,
    ("synthetic/clip.py", "write_clip", "imwrite"): OWN,
    ("synthetic/clip.py", "write_clip", "save"): OWN,
    ("synthetic/clip.py", "write_clip", "savetxt"): OWN,
    ("synthetic/clip.py", "write_video", "open"): OWN,
    ("video/ffmpeg.py", "provide_ffmpeg", "copy2"): TEMPORARY,
    ("video/ffmpeg.py", "provide_ffmpeg", "symlink_to"): TEMPORARY,
    ("video/writing.py", "_encoder", "open"): WHOLE,
}
TRAINING = "training of a network from the beginning, whose folder is new; a run that is resumed reads its last one"
MACHINE = "once for a machine with a GPU, in the cache: made again when it is not whole"
LEFT_OUT = {
    ("dataparser/reconstructions/vipe.py", "_exr"): "a copy for OpenEXR, read and removed at once",
    ("evaluation/bench/launch.py", "_run_process"): "the log of another process, beside its results",
    ("evaluation/bench/meter.py", "__init__"): "into /proc, to begin counting memory anew",
    ("files/download.py", "_write_validator"): "in tests/evaluation/test_download.py, with a server that breaks off",
    ("files/download.py", "fetch"): "in tests/evaluation/test_download.py, with a server that breaks off",
    ("machine/kernels.py", "_note"): MACHINE,
    ("machine/kernels.py", "_run_build"): MACHINE,
    ("machine/toolkit.py", "_link"): MACHINE,
    ("predictor/masks/refiners/sam2.py", "_refine_part"): "a temporary folder for SAM 2, which is not installed here",
    ("predictor/network/weights.py", "save_weights"): TRAINING,
    ("predictor/training/data/labelling.py", "_write_image"): "labels of a training set; what is there is gone on from",
    ("predictor/training/data/labelling.py", "label_sequence"): "labels of a training set; see there",
    ("predictor/training/features/store.py", "_write"): TRAINING,
    ("predictor/training/features/store.py", "open"): TRAINING,
    ("predictor/training/flow/train.py", "__init__"): TRAINING,
    ("predictor/training/flow/train.py", "_log"): TRAINING,
    ("predictor/training/flow/train.py", "_save"): TRAINING,
    ("predictor/training/flow/train.py", "_validate_and_save"): TRAINING,
    ("predictor/training/loop/checkpoint.py", "save_checkpoint"): TRAINING,
    ("predictor/training/loop/logs.py", "_write"): TRAINING,
    ("predictor/training/loop/train.py", "_starting_network"): TRAINING,
    ("runtime/failures.py", "_keep_traceback"): "for errors that nobody foresaw, which a full disk is not",
    ("runtime/failures.py", "reader_left"): "the null device",
    ("synthetic/clip.py", "write_clip"): "a synthetic clip for a demo, made anew each time",
    ("synthetic/clip.py", "write_video"): "a synthetic clip for a demo, made anew each time",
    ("report/video.py", "encode_video"): "into memory",
    ("predictor/cameras/colmap_features.py", "match_features"): "COLMAP's own folder, for clips without cameras",
    ("video/writing.py", "_encoder"): "FFmpeg itself writes: with a limit of the system, above",
    ("video/ffmpeg.py", "provide_ffmpeg"): "for FFmpeg of imageio, where the system has none",
}
"""Writes that no command of `tests/soak/full_disk.py` comes to, by file and function, with the reason. It fails where
it does not come to another one."""

CALLS = {
    "write_text", "write_bytes", "savefig", "imwrite", "savez", "savez_compressed", "savetxt", "mkdtemp", "mkstemp",
    "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "symlink_to", "copy2", "copyfile", "copytree",
    "copyfileobj",
}  # fmt: skip


def writes_of(path: Path) -> Iterator[tuple[str, str]]:
    """Function and call of every write in a source file."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            owner = getattr(called.value, "id", "") if isinstance(called, ast.Attribute) else ""
            given = [*node.args[:2], *(word.value for word in node.keywords if word.arg == "mode")]
            modes = [g.value for g in given if isinstance(g, ast.Constant) and isinstance(g.value, str)]
            opens = any(set(m) <= set("rwaxbt+") and set(m) & set("wax+") for m in modes)
            if name in CALLS or (name == "save" and owner in ("torch", "np")) or (name == "open" and opens):
                yield function, name
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), "")


def test_the_list_of_writes_is_complete():
    root = Path(das3r_ns.__file__).parent
    found = {(str(p.relative_to(root)), *write) for p in root.rglob("*.py") for write in writes_of(p)}
    new, gone = found - WRITES.keys(), WRITES.keys() - found
    assert not new, f"say in WRITES what becomes of these when the disk is full: {sorted(new)}"
    assert not gone, f"these are in WRITES and not in the package: {sorted(gone)}"


def test_what_no_command_is_let_run_full_at_is_a_write_of_the_package():
    assert LEFT_OUT.keys() <= {(file, function) for file, function, _ in WRITES}
