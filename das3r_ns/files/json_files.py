"""Settings and results as JSON: plain values, files that are whole or not there."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def to_jsonable(value: Any) -> Any:
    """`value` as it reads after a round through JSON: dataclasses and mappings become dicts with names as keys, tuples
    lists, what is no finite number None (JSON has no word for it), paths and all else their text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as `plain` has it. An interrupted run leaves the file that was there, or none."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(to_jsonable(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
