"""Files and names that the page for newcomers sends them to are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "das3r_ns"


def places(text: str) -> list[str]:
    """What stands in backticks and looks like a file or a folder."""
    return [name for name in re.findall(r"`([^`\s]+)`", text) if re.fullmatch(r"[\w/]+(\.py|/)|\w+(/\w+)+", name)]


def is_there(name: str) -> bool:
    starts = (ROOT, ROOT / "docs", PACKAGE, PACKAGE / "predictor", PACKAGE / "dataparser")
    return any((start / name).exists() for start in starts) or ("/" not in name and any(PACKAGE.rglob(name)))


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(page):
    named = places((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not is_there(name)] == []


def test_names_that_are_to_be_changed_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    names = re.findall(r"`(?:\w+\.)?([A-Za-z_]\w*[A-Z_]\w*)`", text.split("## Where to change what")[1])
    assert len(names) > 5
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_a_file_that_is_gone_is_found():
    assert [name for name in places("`model/gone.py`, `masks/decide.py`") if not is_there(name)] == ["model/gone.py"]
