"""PLY, SPZ and compressed PLY of one splat render alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from das3r_ns.export.splats import convert_splat, kind_of_splat

gsply = pytest.importorskip("gsply")
COUNT, SIZE = 4000, (96, 128)


@pytest.fixture(scope="module")
def ply(tmp_path_factory) -> Path:
    """A wall of Gaussians with colours that depend on the direction, and a few far away, as nerfstudio writes them."""
    rng = np.random.default_rng(0)
    n = COUNT
    xyz = np.column_stack((rng.uniform(-2, 2, n), rng.uniform(-1.5, 1.5, n), 3 + rng.normal(0, 0.3, n)))
    xyz[:20] *= 30
    columns = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2], "nx": np.zeros(n), "ny": np.zeros(n), "nz": np.zeros(n)}
    smooth = np.sin(3 * xyz[:, :1] + np.array([0, 1, 2])) * 1.2
    columns |= {f"f_dc_{k}": smooth[:, k] for k in range(3)}
    columns |= {f"f_rest_{k}": rng.normal(0, 0.05, n) for k in range(45)}
    columns |= {"opacity": rng.normal(1, 1.5, n)}
    columns |= {f"scale_{k}": rng.normal(-3, 0.4, n) for k in range(3)}
    quaternions = rng.normal(size=(n, 4))
    columns |= {f"rot_{k}": quaternions[:, k] for k in range(4)}
    table = np.empty(n, [(name, "f4") for name in columns])
    for name, values in columns.items():
        table[name] = values
    path = tmp_path_factory.mktemp("splat") / "splat.ply"
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
    return path


def render(path: Path) -> torch.Tensor:
    """By our rasterizer of what gsply reads. The axes of SPZ are x right, y up, z back: the camera is turned there."""
    from das3r_ns.model.rasterizer import rasterize

    splat = gsply.read_spz(str(path)) if path.suffix == ".spz" else gsply.plyread(str(path))
    K = torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]])
    quaternions = torch.tensor(np.ascontiguousarray(splat.quats))
    harmonics = np.concatenate((splat.sh0[:, None], splat.shN), axis=1)
    colours, _, _ = rasterize(
        means=torch.tensor(np.ascontiguousarray(splat.means)),
        quats=quaternions,
        scales=torch.tensor(np.exp(splat.scales)),
        opacities=torch.sigmoid(torch.tensor(np.ascontiguousarray(splat.opacities))),
        colors=torch.tensor(harmonics),
        viewmats=torch.diag(torch.tensor([1.0, -1, -1, 1] if path.suffix == ".spz" else [1.0] * 4))[None],
        Ks=K[None],
        width=SIZE[1],
        height=SIZE[0],
        sh_degree=3,
        rasterizer="cpu",
    )
    return colours[0, ..., :3].clamp(0, 1)


@pytest.mark.parametrize("ending", [".spz", ".compressed.ply"])
def test_other_files_render_like_the_ply(ending, ply, tmp_path):
    out = convert_splat(ply, tmp_path / f"splat{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"splat{ending}"]
    assert out.stat().st_size < 0.4 * ply.stat().st_size
    error = float((render(out) - render(ply)).square().mean())
    psnr = -10 * np.log10(error)
    print(f"{ending}: {psnr:.1f} dB")
    assert psnr > 40


def test_endings():
    assert kind_of_splat(Path("a.compressed.ply")) == ".compressed.ply"
    assert kind_of_splat(Path("a.b.PLY")) == ".ply"
    with pytest.raises(ValueError, match="splat-transform"):
        kind_of_splat(Path("a.glb"))
