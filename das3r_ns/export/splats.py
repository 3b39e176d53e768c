"""A splat as other files than PLY: SPZ (Niantic) and PlayCanvas's compressed PLY, by gsply."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from das3r_ns.files.whole import whole_file

ENDINGS = (".ply", ".compressed.ply", ".spz")
RDF_TO_RUB = np.array([1.0, -1.0, -1.0], np.float32)
"""PLY files are taken for x right, y down, z forward; SPZ files have x right, y up, z back. This turns one into the
other, half a turn about x."""
HARMONICS_TO_RUB = np.array([-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32)
"""The same for spherical harmonics of degree 1 to 3: those that are odd in y and z together change their sign."""
SPZ_POSITION_BITS = 24
"""Of a coordinate, one of them its sign."""
MAX_FRACTIONAL_BITS = 20


def kind_of_splat(path: Path) -> str:
    """Which of `ENDINGS` a name has.

    Raises:
        ValueError: none.
    """
    name = path.name.lower()
    for ending in (".compressed.ply", ".ply", ".spz"):
        if name.endswith(ending):
            return ending
    raise ValueError(
        f"--out {path} must end in {', '.join(ENDINGS)}. For .sog, .glb and a web page write .ply first: npx "
        "@playcanvas/splat-transform splat.ply splat.html"
    )


def check_package(kind: str) -> None:
    """
    Raises:
        ImportError: what writes such files is not installed.
    """
    if kind == ".ply":
        return
    try:
        import gsply  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{kind} files need gsply. Run: pip install 'das3r-ns[splats]'") from error


def convert_splat(ply: Path, out: Path) -> Path:
    """Write a PLY of Gaussians as what the ending of `out` says.

    SPZ has other axes, and readers turn it back. It keeps positions in fixed point: as many bits as the farthest
    Gaussian leaves are behind the point.

    Raises:
        ImportError: gsply is not installed.
        OSError: the file cannot be written; one that was there before is still whole.
    """
    kind = kind_of_splat(out)
    check_package(kind)
    import gsply

    splat = gsply.plyread(str(ply))
    with whole_file(out, what="the splat") as part:
        if kind == ".spz":
            reach = float(np.abs(splat.means).max(initial=1e-6))
            whole_bits = max(0, int(np.ceil(np.log2(reach + 1e-6))) + 1)
            bits = int(np.clip(SPZ_POSITION_BITS - 1 - whole_bits, 0, MAX_FRACTIONAL_BITS))
            gsply.write_spz(str(part), _to_rub(splat), version=3, fractional_bits=bits)
        else:
            gsply.plywrite(str(part), splat, compressed=kind == ".compressed.ply")
            written = part.with_name(part.name.removesuffix(".ply") + ".compressed.ply")
            with contextlib.suppress(FileNotFoundError):
                if written != part:
                    written.replace(part)
    return out


def _to_rub(splat: Any) -> Any:
    turned = splat.copy()
    turned.means = np.ascontiguousarray(splat.means * RDF_TO_RUB)
    turned.quats = np.ascontiguousarray(splat.quats * np.array([1, *RDF_TO_RUB], np.float32))
    if splat.shN is not None and splat.shN.size:
        bands = splat.shN.shape[1]
        turned.shN = np.ascontiguousarray(splat.shN * HARMONICS_TO_RUB[:bands, None])
    return turned
