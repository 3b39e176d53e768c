"""ns-render finds an ffmpeg program on a machine that has none."""

import os
import shutil
import subprocess

from das3r_ns.video.ffmpeg import provide_ffmpeg


def test_a_machine_without_ffmpeg_gets_one_that_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ffmpeg") is None
    provide_ffmpeg.__wrapped__()
    program = shutil.which("ffmpeg")
    assert program is not None
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("ffmpeg version")


def test_a_system_that_makes_no_links_gets_a_copy(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    monkeypatch.setenv("PATH", str(tmp_path))
    provide_ffmpeg.__wrapped__()
    program = shutil.which("ffmpeg")
    assert program is not None
    subprocess.run([program, "-version"], capture_output=True, check=True)


def test_the_users_own_ffmpeg_stays_first(monkeypatch, tmp_path):
    own = tmp_path / "ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    provide_ffmpeg.__wrapped__()
    assert os.environ["PATH"] == str(tmp_path)
