"""The page: what the template needs, and filling it in."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from das3r_ns import __version__
from das3r_ns.report.advice import Advice
from das3r_ns.report.charts import HEIGHT, PLAN_SIDE, WIDTH, Curve, Plan

TEMPLATE = "page.html"
PACKAGES = ("nerfstudio", "gsplat", "torch", "numpy", "opencv-python-headless", "pycolmap", "numba")


@dataclass(frozen=True)
class Panel:
    """An image with a line of text under it."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Video:
    """The video of a report."""

    uri: str
    kind: str
    """MIME type."""
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Report:
    """Everything a page says."""

    title: str
    summary: Sequence[tuple[str, str]]
    """Names and values, in the order in which they are shown."""
    advice: Sequence[Advice]
    video: Video
    masks: Sequence[Panel]
    depth: Sequence[Panel]
    plans: Sequence[Plan]
    curves: Sequence[Curve]
    seconds: Mapping[str, float]
    """By stage."""
    settings: Mapping[str, str]
    """Texts by title, shown folded."""
    made: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))
    versions: Mapping[str, str] = field(default_factory=lambda: versions())


def versions() -> dict[str, str]:
    """Versions of what this was made with."""
    found = {"das3r_ns": __version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["system"] = platform.platform()
    found["GPU"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none used"
    return found


def render_page(report: Report) -> str:
    """The page as HTML. Everything that comes from files is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        report=report, chart_width=WIDTH, chart_height=HEIGHT, plan_side=PLAN_SIDE
    )


def settings_text(value: Any) -> str:
    """Settings as indented text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def readable(path: Path | str) -> str:
    """A path as it is printed, whatever bytes it has."""
    return str(path).encode("utf-8", "replace").decode("utf-8")
