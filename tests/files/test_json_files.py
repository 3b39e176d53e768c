"""Settings and results as JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from das3r_ns.files.json_files import to_jsonable, write_json


@dataclass
class Settings:
    weights: Path
    offsets: tuple[int, ...] = (1, 2)


def test_what_json_has_no_word_for_becomes_what_it_has():
    content = {"settings": Settings(Path("a/b")), 7: [math.nan, -math.inf, 1.5, True], "none": None}
    expected = {"settings": {"weights": "a/b", "offsets": [1, 2]}, "7": [None, None, 1.5, True], "none": None}
    assert to_jsonable(content) == expected


def test_plain_values_are_those_that_are_read_again(tmp_path):
    content = {"settings": Settings(Path("a")), "name": "Küche 台所", "share": 1 / 3}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == to_jsonable(content)


def test_a_file_that_could_not_be_written_whole_is_the_one_from_before(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"first": 1})

    def disk_full(self: Path, *_args: object, **_options: object) -> int:
        self.write_bytes(b"{")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", disk_full)
    with pytest.raises(OSError, match="no space"):
        write_json(tmp_path / "a.json", {"second": 2})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"first": 1}
