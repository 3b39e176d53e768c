"""The command line: instant help, helpful mistakes, and every subcommand really there."""

import subprocess
import sys

import pytest

from das3r_ns import __version__, cli


def run(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["das3r", *arguments])
    cli.main()
    return capsys.readouterr().out


def test_help_names_every_command_and_nerfstudios_own(capsys, monkeypatch):
    text = run(capsys, monkeypatch, "--help")
    for name in (*cli.COMMANDS, "ns-train das3r", "ns-export"):
        assert name in text


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['das3r']; from das3r_ns import cli; cli.main(); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip().endswith("False")


HEAVY = ("pycolmap", "numba", "torch._dynamo", "nerfstudio", "gsplat", "scipy")
STARTS = {
    "das3r predict --help": (
        "import sys; sys.argv = ['das3r', 'predict', '--help']\n"
        "from das3r_ns import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n",
        HEAVY,
    ),
    # nerfstudio, which lists all methods in each of its commands, brings torch._dynamo and the like itself.
    "ns-train": ("import das3r_ns.config, das3r_ns.dataparser.specification, sys\n", ("pycolmap", "numba")),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_imports_nothing_that_it_does_not_need(start):
    code, heavy = STARTS[start]
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys, monkeypatch):
    assert run(capsys, monkeypatch, "--version").strip() == f"das3r_ns {__version__}"


def test_the_module_runs_as_the_command_does():
    command = [sys.executable, "-m", "das3r_ns.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("das3r_ns ")


def test_an_unknown_command_suggests_the_one_that_was_meant(capsys, monkeypatch):
    with pytest.raises(SystemExit, match="Did you mean `das3r predict`"):
        run(capsys, monkeypatch, "predcit")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_explains_itself(capsys, monkeypatch, name):
    with pytest.raises(SystemExit) as stop:
        run(capsys, monkeypatch, name, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: das3r {name}" in text
    assert cli.load(name).__doc__


def test_a_mistake_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["das3r", "predict", "--data", str(tmp_path / "no.mp4"), "--out", str(tmp_path / "s")]
    )
    monkeypatch.delenv("DAS3R_TRACEBACK", raising=False)
    with pytest.raises(SystemExit, match=r"das3r predict: .*no\.mp4"):
        cli.main()
    monkeypatch.setenv("DAS3R_TRACEBACK", "1")
    with pytest.raises((OSError, ValueError), match=r"no\.mp4"):
        cli.main()
