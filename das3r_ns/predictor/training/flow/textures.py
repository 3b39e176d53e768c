"""Textures that the layers of flow worlds are covered with: drawn, and taken from photographs in the public domain.

A texture has four channels, bytes: RGB, and a height that roughens outlines. All are made once, on the device that
trains; every layer then sees its texture turned, scaled, shifted and in other colours.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from rich import get_console
from torch import Tensor

from das3r_ns.predictor.training.flow.draws import uniform

PHOTOGRAPHS = {
    "astronaut.png": "NASA, public domain",
    "brick.png": "CC0Textures Bricks25, CC0",
    "camera.png": "Lav Varshney, CC0",
    "chelsea.png": "Stefan van der Walt, CC0",
    "clock_motion.png": "Stefan van der Walt, public domain",
    "coffee.png": "Rachel Michetti, CC0",
    "grass.png": "CC0Textures, CC0",
    "gravel.png": "CC0Textures Gravel04, CC0",
    "hubble_deep_field.jpg": "NASA, public domain",
    "retina.jpg": "Häggström, CC0 1.0",
    "rocket.jpg": "SpaceX, public domain",
    "text.png": "scikit-image, public domain",
}
"""Photographs that lie in the folder `data` of the package scikit-image, and on what terms (its own docstrings)."""
HELD_OUT = ("coffee.png", "rocket.jpg", "gravel.png")
"""Photographs that validation uses and training does not."""
PHOTOGRAPH_SHARE, LEAVES_SHARE = 0.45, 0.3
"""Shares of textures from photographs and of dead leaves; the rest are noise, stripes and checks."""
CHUNK = 32
"""Textures made at once: what bounds the memory."""


def make_textures(
    count: int, side: int, generator: torch.Generator, held_out: bool = False, leaves: int = 90
) -> UInt8[Tensor, "count 4 side side"]:
    """Draw textures on the generator's device.

    Args:
        held_out: use the photographs that are kept for validation instead of the others.
        leaves: shapes that are laid over each other in a texture of dead leaves.
    """
    photographs = _photographs(held_out)
    made = []
    for start in range(0, count, CHUNK):
        number = min(CHUNK, count - start)
        photo = _crops(photographs, number, side, generator) if photographs else _noise(number, 3, side, generator)
        noise, patterns = _noise(number, 3, side, generator), _patterns(number, side, generator)
        kind = torch.rand(number, generator=generator, device=generator.device)[:, None, None, None]
        drawn = torch.where(uniform((number, 1, 1, 1), generator) < 0.5, noise, patterns)
        leafy = _dead_leaves(torch.cat((photo, noise, patterns)), number, leaves, generator)
        rgb = torch.where(kind < PHOTOGRAPH_SHARE, photo, drawn)
        rgb = torch.where((kind >= PHOTOGRAPH_SHARE) & (kind < PHOTOGRAPH_SHARE + LEAVES_SHARE), leafy, rgb)
        # Real surfaces are hardly ever even: most textures get some fine grain.
        grain = uniform((number, 1, 1, 1), generator, -0.15, 0.35).clamp_min(0)
        rgb = rgb * (1 + grain * (2 * _noise(number, 1, side, generator) - 1)) + 0.3 * grain * (noise - 0.5)
        height = _noise(number, 1, side, generator)
        made.append((torch.cat((rgb, height), 1).clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(made)


def _photographs(held_out: bool) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    try:
        import skimage
    except ImportError:
        get_console().print(
            "[yellow]scikit-image is not installed: textures are drawn alone, without photographs "
            "(pip install 'das3r-ns[train]')[/yellow]"
        )
        return []
    folder = Path(skimage.__file__).parent / "data"
    names = [name for name in PHOTOGRAPHS if (name in HELD_OUT) == held_out and (folder / name).is_file()]
    # imdecode instead of imread: OpenCV cannot open paths with letters outside the code page on some systems.
    read = [cv2.imdecode(np.fromfile(folder / name, np.uint8), cv2.IMREAD_COLOR) for name in names]
    found = [image[..., ::-1].copy() for image in read if image is not None]
    if not found:
        get_console().print(f"[yellow]no photographs in {folder}: textures are drawn alone[/yellow]", soft_wrap=True)
    return found


def _crops(
    photographs: list[UInt8[np.ndarray, "_ _ 3"]], count: int, side: int, generator: torch.Generator
) -> Float[Tensor, "count 3 side side"]:
    """Squares out of photographs, of a third of the shorter side and more, at random."""
    made = torch.empty(count, 3, side, side, device=generator.device)
    chosen = torch.randint(len(photographs), (count,), generator=generator, device=generator.device).tolist()
    numbers = uniform((count, 3), generator).tolist()
    for i, (which, (size, top, left)) in enumerate(zip(chosen, numbers, strict=True)):
        image = photographs[which]
        shorter = min(image.shape[:2])
        extent = max(round(shorter * (0.35 + 0.65 * size)), 2)
        row, column = round(top * (image.shape[0] - extent)), round(left * (image.shape[1] - extent))
        square = image[row : row + extent, column : column + extent]
        # Enlarged photographs lack fine detail; noise of a few grey levels is added when frames are degraded.
        resized = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if extent > side else cv2.INTER_CUBIC)
        made[i] = torch.from_numpy(resized).to(generator.device).permute(2, 0, 1).float() / 255
    return made


def _noise(count: int, channels: int, side: int, generator: torch.Generator) -> Float[Tensor, "count c side side"]:
    """Noise of several octaves; from white to smooth, from grey to coloured."""
    octaves = int(math.log2(side))
    fall = uniform((count, 1, 1, 1), generator, 0.0, 1.3)
    total = torch.zeros(count, channels, side, side, device=generator.device)
    for octave in range(1, octaves + 1):
        grid = uniform((count, channels, 2**octave, 2**octave), generator, -1, 1)
        total += 2 ** (-fall * octave) * F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    grey = total.mean(1, keepdim=True)
    total = grey + (total - grey) * uniform((count, 1, 1, 1), generator)
    total = total / (total.std((1, 2, 3), keepdim=True) + 1e-6)
    tint = uniform((count, channels, 1, 1), generator, 0.2, 0.8)
    return (tint + uniform((count, 1, 1, 1), generator, 0.02, 0.3) * total).clamp(0, 1)


def _patterns(count: int, side: int, generator: torch.Generator) -> Float[Tensor, "count 3 side side"]:
    """Stripes, checks and rings: what repeats, in two colours, with soft or hard edges."""
    line = torch.linspace(-1, 1, side, device=generator.device)
    y, x = line[:, None], line[None]
    angle, period, phase = (uniform((count, 1, 1), generator, *limits) for limits in ((0, 3.15), (2, 40), (0, 6.3)))
    along, across = x * angle.cos() + y * angle.sin(), -x * angle.sin() + y * angle.cos()
    stripes = torch.sin(along * period * math.pi + phase)
    checks = stripes * torch.sin(across * period * uniform((count, 1, 1), generator, 0.3, 1.5) * math.pi)
    rings = torch.sin((along**2 + across**2).sqrt() * period * math.pi + phase)
    kind = torch.rand((count, 1, 1), generator=generator, device=generator.device)
    wave = torch.where(kind < 0.4, stripes, torch.where(kind < 0.8, checks, rings))
    sharp = (wave * uniform((count, 1, 1), generator, 0.7, 8)).tanh()[:, None] * 0.5 + 0.5
    one, other = uniform((count, 3, 1, 1), generator), uniform((count, 3, 1, 1), generator)
    return one + (other - one) * sharp


def _dead_leaves(
    sources: Float[Tensor, "s 3 side side"], count: int, leaves: int, generator: torch.Generator
) -> Float[Tensor, "count 3 side side"]:
    """Discs and boxes of many sizes that cover each other, each with a part of another texture or one colour: images
    with the statistics of natural ones (Lee, Mumford and Huang, IJCV 2001)."""
    side = sources.shape[-1]
    line = torch.linspace(-1, 1, side, device=generator.device)
    y, x = line[:, None], line[None]
    order = torch.randint(len(sources), (count,), generator=generator, device=generator.device)
    image = sources[order].clone()
    for leaf in range(leaves):
        # Large leaves lie below small ones, or nothing of the small would be seen.
        largest = 0.7 * (1 - leaf / leaves) + 0.04
        size = uniform((count, 1, 1), generator, 0.3, 1) * largest
        cx, cy, angle, kind, aspect = (
            uniform((count, 1, 1), generator, *limits) for limits in ((-1, 1), (-1, 1), (0, 3.15), (0, 1), (0.15, 1))
        )
        u = (x - cx) * angle.cos() + (y - cy) * angle.sin()
        v = (-(x - cx) * angle.sin() + (y - cy) * angle.cos()) / aspect
        distance = torch.where(kind < 0.5, (u**2 + v**2).sqrt(), torch.maximum(u.abs(), v.abs())) - size
        inside = (0.5 - distance * side / 2).clamp(0, 1)[:, None]
        colour = uniform((count, 3, 1, 1), generator)
        if leaf % 2:
            order = torch.randint(len(sources), (count,), generator=generator, device=generator.device)
            shift = int(torch.randint(side, (1,), generator=generator, device=generator.device))
            texture = sources[order].roll((shift, shift), (2, 3))
            colour = texture * uniform((count, 1, 1, 1), generator, 0.3, 1.2) + 0.3 * (colour - 0.5)
        image = image + (colour - image) * inside
    return image.clamp(0, 1)
