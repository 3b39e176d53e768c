"""Settings and results as JSON: plain values, files that are whole or not there."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from das3r_ns.files.regular import check_regular
from das3r_ns.files.whole import write_text_whole

MAX_JSON_BYTES = 256 << 20
"""A transforms.json of a hundred thousand frames has 60 MB."""


def to_jsonable(value: Any) -> Any:
    """`value` as it reads after a round through JSON: dataclasses and mappings become dicts with names as keys, tuples
    lists, what is not a finite number None (JSON has no word for it), paths and all else their text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def read_json_object(path: Path, error: type[Exception] = ValueError) -> dict[str, Any]:
    """Read a JSON object from a file that somebody else may have written.

    Raises:
        FileNotFoundError: it does not exist.
        error: it is not a regular file, larger than any such file, or not a JSON object.
    """
    check_regular(path, error)
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise error(f"{path} has {size / 2**20:.0f} MiB: too large for a file of this kind.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise error(f"{path} is nested too deep to be meant.") from None
    except ValueError as cause:  # of JSON, of UTF-8, of numbers of thousands of digits
        raise error(f"{path} is not valid JSON ({cause}).") from cause
    if not isinstance(content, dict):
        raise error(f"{path} holds a {type(content).__name__} and not a JSON object.")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write `content` as `to_jsonable` has it, whole or not at all.

    Raises:
        DiskFullError: there is no room; the file that was there is still there.
    """
    write_text_whole(path, json.dumps(to_jsonable(content), indent=2, allow_nan=False) + "\n")
