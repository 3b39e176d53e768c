"""What is published: wheel and sdist are built, checked, and the wheel is installed in a clean environment."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # the checkout, perhaps
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder with sdist and wheel, the wheel built from the sdist, as a release does it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory) -> Path:
    """A clean environment with the wheel; what it depends on is that of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", next(dist.glob("*.whl")))
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "rest.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def test_the_metadata_are_in_order(dist):
    assert run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()).count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"das3r_ns"}
    assert "das3r_ns/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "das3r_ns").rglob("*.py")}
    assert sources <= set(names)
    data = {
        str(path.relative_to(ROOT))
        for suffix in ("json", "npz", "safetensors")
        for path in (ROOT / "das3r_ns").rglob(f"*.{suffix}")
    }
    assert data <= set(names)


def test_the_sdist_can_be_built_and_tested_from(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = sdist.getnames()
    inside = {name.split("/", 1)[1] for name in names if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "das3r_ns/cli.py"} <= inside


def test_the_wheel_works_in_a_clean_environment(installed, tmp_path):
    das3r = installed.with_name("das3r")
    assert run(das3r, "--version", cwd=tmp_path).startswith("das3r_ns ")
    where = run(installed, "-c", "import das3r_ns; print(das3r_ns.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where
    code = (
        "from importlib.metadata import entry_points\n"
        "for group in ('nerfstudio.method_configs', 'nerfstudio.dataparser_configs'):\n"
        "    print(*sorted(e.name for e in entry_points(group=group) if e.value.startswith('das3r_ns')))\n"
    )
    found = run(installed, "-c", code, cwd=tmp_path).split()
    assert {"das3r", "das3r-lite", "das3r-paper", "das3r-data"} <= set(found)
