"""`das3r batch`: which clips a folder holds, what a repeated command does again, and what the table says."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.evaluation.batch import command, worker
from das3r_ns.evaluation.batch.command import as_markdown, find_clips, row_of, write_table
from das3r_ns.evaluation.batch.worker import STAGES, ClipJob, run_clip


def folder_of_images(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def job(tmp_path, monkeypatch):
    calls = []
    job = ClipJob("one", folder_of_images(tmp_path / "clips" / "one"), PredictionOptions(predictor="geometric"),
                  "das3r-lite", 5, STAGES, tmp_path / "out" / "one", False)  # fmt: skip
    values = {
        "predict": {"scene": str(job.out / "scene"), "frames": 3, "frames_posed": 3, "moving_share": 0.25,
                    "predictor": "geometric", "quality": {"doubts": ["the focal length is weak"]}},
        "train": {"config": str(job.out / "runs" / "config.yml")},
        "image": {"image": str(job.out / "contact_sheet.png"), "num_gaussians": 7,
                  "static_psnr_of_training_frames": 30.0},
        "render": {"video": str(job.out / "static.mp4")},
        "export": {"splat": str(job.out / "splat.ply")},
    }  # fmt: skip
    fails = set()

    def stage(name):
        def work(job):
            calls.append(name)
            if name in fails:
                raise RuntimeError(f"no {name} today")
            return values[name]

        return work

    for name in STAGES:
        monkeypatch.setattr(worker, f"{name}_stage", stage(name))
    return job, calls, fails


def test_clips_of_a_folder_are_found_and_the_rest_is_named(tmp_path, capsys):
    folder_of_images(tmp_path / "b")
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    assert find_clips(tmp_path) == {"a": tmp_path / "a.mp4", "b": tmp_path / "b"}
    assert "empty, notes.txt" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="One clip's own images are not a folder of clips"):
        find_clips(tmp_path / "b")
    folder_of_images(tmp_path / "a")
    with pytest.raises(ValueError, match="have one name"):
        find_clips(tmp_path)


def test_what_is_finished_is_not_repeated_and_what_was_interrupted_is(job):
    job, calls, _ = job
    run_clip(job)
    assert not (job.out / ".lock").exists()
    assert calls == list(STAGES)
    run_clip(job)
    assert calls == list(STAGES)
    (job.out / "results" / "render.json").unlink()  # killed while it rendered
    run_clip(job)
    assert calls == [*STAGES, "render"]
    (job.out / "results" / "train.json").write_text("{")
    run_clip(job)
    assert calls[len(STAGES) + 1 :] == ["train", "image", "render", "export"]


def test_other_options_train_anew(job):
    job, calls, _ = job
    run_clip(job)
    calls.clear()
    run_clip(ClipJob(**{**vars(job), "steps": 6}))
    assert calls == ["train", "image", "render", "export"]


def test_a_stage_that_fails_is_told_and_those_that_do_not_need_it_go_on(job):
    job, calls, fails = job
    fails.add("render")
    run_clip(job)
    assert calls == list(STAGES)
    row = row_of(job)
    assert row["error"] == "render: RuntimeError: no render today"
    assert row["splat"] is not None
    fails.clear()
    run_clip(job)
    assert calls == [*STAGES, "render"]
    assert row_of(job)["error"] is None
    fails.add("predict")
    (job.out / "results" / "predict.json").unlink()
    run_clip(job)
    assert row_of(job)["splat"] is None  # what rested on the former prediction is gone with it


def test_the_table_names_doubts_links_and_failures(job, monkeypatch, tmp_path):
    good, _, fails = job

    def here(jobs, at_a_time, done, worker_module):
        assert (at_a_time, worker_module) == (2, worker.__name__)
        for clip in jobs:
            fails.clear()
            fails.update({"predict"} if clip.name == "two" else ())
            run_clip(clip)
            done(clip)

    folder_of_images(tmp_path / "clips" / "two")
    monkeypatch.setattr(command, "run_here", here)
    with pytest.raises(RuntimeError, match="1 of 2 clips failed, two with: predict: RuntimeError: no predict today"):
        command.batch(tmp_path / "clips", tmp_path / "out", method="das3r-lite", jobs=2)
    rows = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert [row["clip"] for row in rows] == ["one", "two"]
    table = (tmp_path / "out" / "batch.md").read_text()
    assert "3 of 3 | 25% | the focal length is weak | 7 | 30.00" in table
    assert "![contact sheet](one/contact_sheet.png) | [video](one/static.mp4), [splat](one/splat.ply)" in table
    assert "**failed**: predict: RuntimeError: no predict today" in table
    assert rows[1]["error"]
    assert as_markdown(rows, tmp_path / "out") == table
    assert good.out == tmp_path / "out" / "one"


def test_options_of_one_clip_are_refused(tmp_path):
    folder_of_images(tmp_path / "clips" / "one")
    masks = PredictionOptions(masks=tmp_path / "clips")
    with pytest.raises(ValueError, match="belong to one clip"):
        command.batch(tmp_path / "clips", options=masks)
    with pytest.raises(ValueError, match="go together"):
        command.batch(tmp_path / "clips", cluster="slurm")


def job_of(folder: Path, name: str) -> ClipJob:
    return ClipJob(name, folder / "a.mp4", PredictionOptions(), "das3r-lite", None, STAGES, folder / "a", False)


@pytest.mark.parametrize(
    ("stage", "content"),
    [
        ("predict", "[]"),
        ("predict", '{"values": 5}'),
        ("predict", '{"values": {"frames": "many", "frames_posed": [], "moving_share": "x", "quality": 3}}'),
        ("image", '{"seconds": "long", "values": {"num_gaussians": {}, "static_psnr_of_training_frames": "y"}}'),
        ("render", '{"values": {"video": ["a"]}}'),
        ("crash", '{"error": {"a": 1}}'),
        ("train", "[" * 100_000),
    ],
)
def test_a_damaged_result_of_a_stage_is_as_if_it_had_not_run(tmp_path, stage, content):
    job = ClipJob(
        "a", tmp_path / "a.mp4", PredictionOptions(), "das3r-lite", None, worker.STAGES, tmp_path / "a", False
    )
    (job.out / "results").mkdir(parents=True)
    (job.out / "results" / f"{stage}.json").write_text(content)
    assert worker.results_of(job.out) == {}
    row = row_of(job)
    assert row["error"] is row["video"] is row["frames"] is None
    assert "**failed**" in as_markdown([row], tmp_path)


def test_what_lies_elsewhere_and_what_ends_a_line_stay_in_their_cells(tmp_path):
    name = os.fsdecode(b"a\xff|\n\x1b[31m")
    job = ClipJob(
        name, tmp_path / "a.mp4", PredictionOptions(), "das3r-lite", None, worker.STAGES, tmp_path / "a", False
    )
    (job.out / "results").mkdir(parents=True)
    (job.out / "results" / "export.json").write_text('{"values": {"splat": "/etc/passwd"}}')
    write_table([row_of(job)], tmp_path)
    lines = (tmp_path / "batch.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| a?/??[31m |")
    assert lines[2].count("|") == lines[0].count("|")
    assert "passwd" not in lines[2]


def test_every_kind_of_image_and_video_that_is_read_makes_a_clip(tmp_path):
    for suffix in (".jfif", ".pgm", ".heif", ".avif"):  # of the last two a row says what is missing
        (tmp_path / f"folder_{suffix[1:]}").mkdir()
        (tmp_path / f"folder_{suffix[1:]}" / f"0{suffix}").write_bytes(b"")
    for suffix in (".h264", ".rm", ".3g2", ".MP4"):
        (tmp_path / f"video_{suffix[1:]}{suffix}").write_bytes(b"")
    assert len(find_clips(tmp_path)) == 8
