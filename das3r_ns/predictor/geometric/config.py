"""Settings of the geometric predictor, apart from the predictor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from das3r_ns.predictor.base import Predictor, PredictorSettings
from das3r_ns.predictor.cameras.config import MappingConfig
from das3r_ns.predictor.flow.matcher_choice import MatcherName, resolve_matcher
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.refiners.choice import resolve_auto

MEDIANS_PX = (1, 3, 5)
"""Sides of OpenCV's median filter over values that are not 8-bit; 1 is none."""


@dataclass
class GeometricPredictorConfig(PredictorSettings):
    """Cameras, depth and moving objects from motion and geometry alone: no weights, no GPU."""

    mapping: MappingConfig = field(default_factory=MappingConfig)
    """Cameras."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """How evidence of motion becomes `dynamic_prob`, and what refines it."""
    flow: Literal["auto", "dis", "learned", "best", "raft"] = "auto"
    """Optical flow: `dis`, OpenCV's DIS; `learned`, the network of `das3r train-flow`; `best`, of both the better in
    each pixel; `raft`, torchvision's RAFT. The networks run on a GPU when there is one (seconds a pair without). auto:
    `best` where `flow_weights` are named, `raft` where `raft_weights` are, else `dis`."""
    flow_weights: Path | None = None
    """File of `das3r train-flow`, for `flow` learned and best."""
    raft_weights: Path | None = None
    """File of torchvision's `raft_large` or `raft_small`, for `flow` raft. None takes what torchvision keeps on this
    machine, else fetches `raft_large` (21 MB)."""
    matching: MatcherName = "auto"
    """Point matches that lead flow where motion is too large for it, and tell cuts from fast motion: `sift`, OpenCV's;
    `xfeat`, a small network that finds several times as many in blur (extra `xfeat`); `auto`, xfeat where its extra is
    installed."""
    map_longest_side: int = 432
    """Pixels on the longer side of depth, confidence and dynamic_prob. More is slower and noisier, not sharper:
    optical flow has no finer detail."""
    offsets: tuple[int, ...] = (1, 2, 4, 8)
    """Distances in frames, both ways, over which flow is taken."""
    flow_memory_mb: int = 1024
    """Flow kept in memory; what does not fit is computed again."""
    max_points: int = 150_000
    """Size of the seed cloud."""
    laid_over: bool = True
    """Find black bars, logos and words that stay in place, and leave out what they cover. Turn off if a part of the
    scene is taken for such an object."""

    def check(self) -> None:
        """
        Raises:
            ValueError: a value makes no sense; the message names its option.
        """
        masks, mapping = self.masks, self.mapping
        if self.flow == "auto" and self.flow_weights is not None and self.raft_weights is not None:
            raise ValueError(
                "--geometric.flow-weights and --geometric.raft-weights are weights of two networks; say which with "
                "--geometric.flow best or raft"
            )
        if self.flow in ("learned", "best") and self.flow_weights is None:
            raise ValueError(
                f"--geometric.flow {self.flow} needs --geometric.flow-weights, a file of `das3r train-flow`"
            )
        found = {
            "map-longest-side": (self.map_longest_side, self.map_longest_side >= 1, "1 or more"),
            "offsets": (self.offsets, bool(self.offsets) and min(self.offsets) >= 1, "distances of 1 or more frames"),
            "masks.median-px": (masks.median_px, masks.median_px in MEDIANS_PX, "1, 3 or 5"),
            "masks.softness": (masks.softness, masks.softness > 0, "above 0"),
            "masks.contrast": (masks.contrast, masks.contrast > 0, "above 0"),
            "masks.memory": (masks.memory, 0 <= masks.memory <= 1, "between 0 and 1"),
            "masks.seen-through": (masks.seen_through, 0 <= masks.seen_through <= 1, "between 0 and 1"),
            "masks.appearance": (masks.appearance, 0 <= masks.appearance <= 1, "between 0 and 1"),
            "mapping.field-of-view": (
                mapping.field_of_view,
                1 < mapping.field_of_view < 170,
                "between 1 and 170 degrees",
            ),
            "mapping.features.overlap": (mapping.features.overlap, mapping.features.overlap >= 1, "1 or more"),
        }
        for option, (value, right, expected) in found.items():
            if not right:
                raise ValueError(f"--geometric.{option} must be {expected}, got {value}")

    def resolve_auto(self) -> GeometricPredictorConfig:
        """The same with what `auto` means here and now, so that it can be recorded."""
        return replace(
            self,
            matching=resolve_matcher(self.matching),
            flow=self._resolve_flow(),
            masks=replace(self.masks, refiner=resolve_auto(self.masks.refiner)),
        )

    def _resolve_flow(self) -> Literal["dis", "learned", "best", "raft"]:
        if self.flow != "auto":
            return self.flow
        return "best" if self.flow_weights is not None else "raft" if self.raft_weights is not None else "dis"

    def cache_key(self) -> dict[str, Any]:
        """See `PredictorSettings`. Scenes that were predicted before there was a choice of matching are found again."""
        key = asdict(self.resolve_auto())
        if self.matching == "auto":
            del key["matching"]
        return key

    def announcement(self, masks_given: bool) -> str:
        """What the masks will come from, where `auto` decides it."""
        if masks_given or self.masks.refiner != "auto":
            return ""
        refiner = resolve_auto(self.masks.refiner)
        if refiner == "none":
            return "Masks: from motion alone (pip install 'das3r-ns[salience]' makes them sharper)."
        return f"Masks: from motion and {refiner}."

    def weight_files(self) -> dict[str, Path]:
        """Of the optical flow, where they are named."""
        given = {"geometric.raft-weights": self.raft_weights, "geometric.flow-weights": self.flow_weights}
        return {option: path for option, path in given.items() if path is not None}

    def build(self) -> Predictor:
        """See `PredictorSettings`.

        Raises:
            ImportError: the refiner needs a package that is not installed.
        """
        from das3r_ns.predictor.geometric.predictor import GeometricPredictor

        return GeometricPredictor(self)
