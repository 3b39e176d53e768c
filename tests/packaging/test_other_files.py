"""Dockerfile, conda environment, lock files, notebook and the listing say what the package is."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "hosted_gpu.ipynb"


def extras() -> set[str]:
    table = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    return set(re.findall(r"^([a-z0-9]+) = \[", table.split("\n[")[0], re.MULTILINE))


def extras_named(text: str) -> set[str]:
    return {word for group in re.findall(r"(?:/src|\.|das3r-ns)\[([a-z0-9,]+)\]", text) for word in group.split(",")}


@pytest.mark.parametrize(
    "file", ["Dockerfile", "environment.yml", "README.md", "docs/install.md", "notebooks/hosted_gpu.ipynb"]
)
def test_extras_that_are_named_exist(file):
    named = extras_named((ROOT / file).read_text(encoding="utf-8"))
    assert named
    assert named <= extras()


def test_the_dockerfile_has_no_lint():
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint has no wheel for this platform")
    done = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_dockerfile_copies_passes_the_dockerignore():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("path", sorted((ROOT / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_locks_name_one_version_of_everything(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    names = [line.split("==")[0] for line in lines]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    assert len(names) == len(set(names))
    assert {"torch", "nerfstudio", "gsplat", "pycolmap", "av", "numpy"} <= set(names)


@pytest.mark.parametrize("file", ["environment.yml", ".github/workflows/ci.yml", ".github/workflows/release.yml"])
def test_yaml_files_can_be_read(file):
    assert yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def test_the_notebook_goes_from_an_upload_to_the_ply():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for source in cells:
        # Lines for the shell begin with "!" and, as IPython has them, are no Python.
        ast.parse("\n".join("pass" if line.lstrip().startswith(("!", "%")) else line for line in source.splitlines()))
    commands = "\n".join(cells)
    for step in ("upload", "ns-train das3r", "das3r render-static", "ns-export gaussian-splat", "download"):
        assert step in commands
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_the_listing_applies_to_the_installed_nerfstudio(tmp_path):
    """The part for `external_methods.py`; the documentation's files are not installed."""
    import nerfstudio.configs

    patch = (ROOT / "docs" / "nerfstudio_listing" / "das3r.patch").read_text(encoding="utf-8")
    part = "diff --git" + next(p for p in patch.split("diff --git") if "external_methods.py" in p)
    target = tmp_path / "nerfstudio" / "configs" / "external_methods.py"
    target.parent.mkdir(parents=True)
    shutil.copy(Path(nerfstudio.configs.__file__).with_name("external_methods.py"), target)
    (tmp_path / "part.patch").write_text(part, encoding="utf-8")
    subprocess.run(["git", "apply", "part.patch"], cwd=tmp_path, check=True)
    text = target.read_text(encoding="utf-8")
    compile(text, str(target), "exec")
    assert '("das3r-lite"' in text
