"""Dockerfile, conda environment, lock files, notebook and the listing say what the package is."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from written_videos import write_video

from das3r_ns.synthetic import SyntheticConfig, make_clip

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


def test_the_conda_environment_is_one_that_conda_reads():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(environment) == {"name", "channels", "dependencies"}
    packages = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line for line in environment["dependencies"] if isinstance(line, dict)]
    assert all(re.fullmatch(r"[a-z0-9-]+(=[0-9.]+)?", package) for package in packages)
    assert "pip" in packages  # else conda warns and takes its own
    (version,) = [package.split("=")[1] for package in packages if package.startswith("python=")]
    assert f'"Programming Language :: Python :: {version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert list(pip) == ["pip"]


@pytest.mark.parametrize("file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_what_github_reads(file):
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_have_no_more_rights_than_they_need():
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("zizmor has no wheel for this platform")
    done = subprocess.run([program, "--offline", str(ROOT / ".github")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


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


@pytest.mark.slow
def test_the_notebook_runs_on_a_cpu(tmp_path, monkeypatch):
    """Every cell but the installation, as a runtime without a GPU is told to run them: with das3r-lite; few steps."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    clip = make_clip(SyntheticConfig(num_frames=16, height=144, width=256))
    write_video(tmp_path / "my_video.mp4", list(clip.frames.numpy()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "pip install" in code[0].source
    code[0].source = "!das3r --version"
    for cell in code[1:]:
        cell.source = cell.source.replace("ns-train das3r", "ns-train das3r-lite --max-num-iterations 20")
        cell.source = cell.source.replace("outputs/clip/das3r/run", "outputs/clip/das3r-lite/run")
    scripts = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    (tmp_path / "kernels" / "this").mkdir(parents=True)
    (tmp_path / "kernels" / "this" / "kernel.json").write_text(json.dumps({**kernel, "display_name": "this"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    done = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="this", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))
    assert "exports/splat.ply and static.mp4 lie beside the notebook" in shown, shown
    assert (tmp_path / "exports" / "splat.ply").stat().st_size > 10_000
    assert (tmp_path / "static.mp4").stat().st_size > 1000
    assert any("video/mp4" in str(output.get("data", "")) for cell in done.cells for output in cell.get("outputs", []))


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
