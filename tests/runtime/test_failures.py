"""How commands end that cannot go on: the sentence, the exit code, and where the traceback went."""

import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest
from nerfstudio.engine.trainer import Trainer
from nerfstudio.scripts.train import launch

from das3r_ns import pipeline
from das3r_ns.pipeline import Das3rTrainer, forget_run
from das3r_ns.runtime import failures
from das3r_ns.video import VideoConfig


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DAS3R_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(failures.TRACEBACK_SWITCH, raising=False)


def caught(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_of_this_package_is_its_message():
    error = caught(lambda: VideoConfig(fps=-1.0).check())
    assert failures.sentence_of(error) == str(error)


def test_an_unforeseen_error_keeps_its_traceback_in_a_file(tmp_path):
    error = caught(lambda: {}["nothing"])
    sentence = failures.sentence_of(error)
    (kept,) = (tmp_path / "cache" / "tracebacks").iterdir()
    assert sentence.startswith("KeyError: 'nothing'")
    assert str(kept) in sentence
    assert "das3r doctor" in sentence
    assert "in caught" in kept.read_text(encoding="utf-8")


def test_only_the_last_tracebacks_are_kept(tmp_path, monkeypatch):
    for i in range(failures.MAX_KEPT_TRACEBACKS + 5):
        monkeypatch.setattr(failures.time, "strftime", lambda _, i=i: f"2026-01-01_{i:06d}")
        failures.sentence_of(caught(lambda: 1 // 0))
    kept = sorted(path.name[:17] for path in (tmp_path / "cache" / "tracebacks").iterdir())
    assert len(kept) == failures.MAX_KEPT_TRACEBACKS
    assert kept[-1].endswith(f"{failures.MAX_KEPT_TRACEBACKS + 4:06d}")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full: make room"),
        (MemoryError(), "--video.max-frames"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "--pipeline.model.max-gaussians"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.yml"), "a.yml does not exist."),
        (PermissionError(errno.EACCES, "Permission denied", "a.yml"), "a.yml cannot be read or written"),
        (KeyboardInterrupt(), "stopped by Ctrl-C."),
    ],
)
def test_what_the_system_says_has_a_sentence_too(error, part):
    assert part in failures.sentence_of(error)


CRASH = "from das3r_ns.runtime.failures import end_in_a_sentence; end_in_a_sentence('ns-train das3r'); open('gone.txt')"


def test_the_process_ends_in_the_sentence_with_exit_code_1(monkeypatch):
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "ns-train das3r: gone.txt does not exist.\n")
    monkeypatch.setenv(failures.TRACEBACK_SWITCH, "1")
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


@pytest.mark.parametrize("where", ["train", "setup"])
def test_ctrl_c_ends_in_one_line_with_exit_code_130(monkeypatch, capsys, tmp_path, where):
    def interrupted(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, where, interrupted)
    monkeypatch.setattr(Das3rTrainer, "settle", lambda self: None)  # plans for a clip
    monkeypatch.setattr(sys, "argv", ["ns-train", "das3r"])
    trainer = Das3rTrainer.__new__(Das3rTrainer)
    trainer.base_dir, trainer.checkpoint_dir = tmp_path / "run", tmp_path / "run" / "nerfstudio_models"
    trainer.config = SimpleNamespace(method_name="das3r", load_dir=None)

    def loop(**_) -> None:
        getattr(trainer, where)()

    class Config:
        logging = type("Logging", (), {"profiler": "none"})()

    with pytest.raises(SystemExit) as ended:  # nerfstudio's own prints a traceback and returns
        launch(loop, num_devices_per_machine=1, config=Config())
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ns-train das3r: stopped by Ctrl-C.\n"


@pytest.mark.parametrize("error", [OSError("no room"), TypeError("not iterable")])
def test_a_report_that_fails_does_not_fail_the_training_before_it(monkeypatch, capsys, tmp_path, error):
    def fails(*_, **__) -> None:
        raise error

    monkeypatch.setattr(pipeline, "write_report", fails)
    monkeypatch.setattr(Das3rTrainer, "record_training", lambda self: None)
    trainer = Das3rTrainer.__new__(Das3rTrainer)
    trainer.base_dir, trainer.local_rank, trainer.train_lock = tmp_path, 0, None
    dataset = SimpleNamespace(metadata={"scene_folder": tmp_path})
    trainer.pipeline = SimpleNamespace(datamanager=SimpleNamespace(train_dataset=dataset))
    trainer.config = SimpleNamespace(report=True)
    trainer.finish(3)
    assert f"No report was written: {'' if isinstance(error, OSError) else 'TypeError: '}" in capsys.readouterr().out


def test_a_run_that_never_began_leaves_no_folder(tmp_path):
    run = tmp_path / "outputs" / "clip" / "das3r" / "2026"
    (run / "nerfstudio_models").mkdir(parents=True)
    (run / "config.yml").touch()
    other = tmp_path / "outputs" / "clip" / "das3r" / "2025"
    other.mkdir()
    (other / "step-000001999.ckpt").touch()
    forget_run(other)
    assert (other / "step-000001999.ckpt").exists()
    forget_run(run)
    assert not run.exists()
    assert other.exists()


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = [sys.executable, "-m", "das3r_ns.cli", "predict", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before a line is written
        complaint = process.stderr.read().decode()
    assert (process.returncode, complaint) == (failures.EXIT_NO_READER, "")
    assert not (tmp_path / "cache" / "tracebacks").exists()
