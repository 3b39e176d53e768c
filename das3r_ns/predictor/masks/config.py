"""Settings of the dynamic masks, apart from what makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from das3r_ns.files.saved_config import SavedConfig

RefinerName = Literal["auto", "none", "salience", "sam2"]
"""`auto`: salience where its extra is installed, else none."""


@dataclass
class MaskConfig(SavedConfig):
    """How evidence of motion becomes `dynamic_prob`."""

    refiner: RefinerName = "auto"
    """What says where objects end, besides motion: `none`, nothing; `salience`, a small network for objects that stand
    out (extra `salience`); `sam2`, SAM 2 prompted by the moving parts (extra `sam2`, a GPU advised); `auto`, salience
    where its extra is installed."""
    threshold: float = 1.95
    """Averaged residual, in standard deviations of the flow's noise, at which a pixel is as likely to move as not."""
    softness: float = 0.5
    """Width of the transition, in the same unit. Smaller gives harder maps."""
    median_px: int = 5
    """Side of the median filter over the residual, map pixels; odd. 1 turns it off."""
    memory: float = 0.9
    """Weight of a neighbouring frame in the average along the flow, its square for the frame after next, and so on:
    0.9 looks about ten frames each way. 0 turns it off, 1 averages over all that is followed."""
    colour_contrast: float = 2.0
    """Weight of what stands out in colour from all that reaches the border of the image, where such objects move.
    0 turns it off."""
    depth_contrast: float = 0.5
    """Same, for what stands out in depth: an object that moves seems to float, or to lie behind its surroundings."""
    floating: float = 0.0
    """Weight of floating free: being several times nearer than the scene and meeting nothing of it. One that drives
    along with the camera does, for the depth that explains its motion is wrong. Needs no other sign of motion, but
    widens outlines; try 8 where such an object is missed altogether. 0 turns it off."""
    motion_contrast: float = 3.0
    """Same, for what moves unlike the border; weighs in only as far as much of the border itself seems to move, as
    with water, or cameras that follow the wrong object."""
    appearance: float = 0.5
    """Share of the evidence that comes from pixels of the same place and colour. 0 turns it off."""
    reach: float = 0.055
    """How far evidence is smoothed where the image is even, as a share of its longer side. 0 turns it off."""
    contrast: float = 0.3
    """Difference of colour (1: black to white) that stops the smoothing. Smaller stops it at weaker edges."""
    seen_through: float = 0.15
    """Share of the frames to compare with, near and far, that must see through the place of an object that stands still
    for it to count as moving: it stood there for a while. 0 turns it off."""
    own: float = 1.0
    """Weight of what a pixel itself shows, where its flow is measured well, against what place, colour and surroundings
    lend it: an object at rest beside one that moves keeps still, and a small one that moves is not averaged away. 0
    turns it off."""
