"""Where Gaussians are put when pixels are given back to the static scene, and from which frames."""

from types import SimpleNamespace

import pytest
import torch

from das3r_ns.model import map_edits
from das3r_ns.model.das3r import Das3rModel
from das3r_ns.model.map_edits import MapChange
from das3r_ns.model.rendering import View
from das3r_ns.model.start import Seeds


class Stand(SimpleNamespace):
    """What map edits ask a model for."""

    __class__ = Das3rModel  # type: ignore[assignment]

    def training_view(self, frame: int) -> View:
        return self.view

    def splats(self, shown: bool) -> None:
        return None


def test_points_are_where_depth_and_camera_say_and_only_where_the_render_is_wrong(monkeypatch):
    # A camera at (1, 2, 3) that looks along the world's +x: its x is -y of the world, its y is -z.
    T_world_camera = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]])
    K = torch.tensor([[40.0, 0, 10], [0, 20, 3], [0, 0, 1]])  # of 8 x 12 pixels; the maps have 4 x 6
    view = View(torch.linalg.inv(T_world_camera)[None], K[None], 8, 12)
    model = Stand(
        view=view, device=torch.device("cpu"), image_sizes=[(8, 12)], background_color=torch.zeros(3),
        config=SimpleNamespace(rasterize_mode="classic", rasterizer="auto"),
    )  # fmt: skip
    monkeypatch.setattr(map_edits, "draw", lambda *_, **__: SimpleNamespace(color=torch.zeros(8, 12, 3)))
    picture = torch.zeros(8, 12, 3)
    picture[2:4, 8:10] = torch.tensor([1.0, 0.5, 0.0])  # row 1, column 4 of the maps
    picture[6:8, 0:2] = torch.tensor([0.0, 0.0, 1.0])  # row 3, column 0
    picture[0:2, 0:2] = 1.0  # called static, of no known depth
    picture[0:2, 6:8] = 1.0  # not called static
    picture[4:6, 6:8] = 0.03  # nearly what the render shows
    static, depth = torch.ones(4, 6, dtype=torch.bool), torch.full((4, 6), 4.0)
    static[0, 3] = False
    depth[0, 0], depth[3, 0] = 0.0, 2.0
    seeds = map_edits._uncovered(model, 0, static, depth, picture)
    # Focal lengths of the maps 20 and 10, principal point (5, 1.5). In the camera:
    # ((4.5 - 5) / 20 x 4, (1.5 - 1.5) / 10 x 4, 4) and ((0.5 - 5) / 20 x 2, (3.5 - 1.5) / 10 x 2, 2).
    in_world = torch.tensor([[1 + 4, 2 + 0.1, 3 - 0.0], [1 + 2, 2 + 0.45, 3 - 0.4]])
    torch.testing.assert_close(seeds.xyz, in_world)
    assert seeds.rgb.tolist() == [[255, 128, 0], [0, 0, 255]]
    assert seeds.staticness.tolist() == [1.0, 1.0]
    torch.testing.assert_close(seeds.pixel_size, torch.tensor([4 / 20, 2 / 20]))


@pytest.mark.parametrize(
    ("frames", "asked"), [(5, range(5)), (12, range(12)), (13, range(0, 13, 2)), (30, range(0, 30, 3))]
)
def test_gaussians_are_added_from_twelve_frames_at_most_spread_over_all(frames: int, asked: range, monkeypatch):
    looked: list[int] = []
    joined: list[tuple[int, int]] = []

    def uncovered(model, frame, static, depth, picture) -> Seeds:
        looked.append(frame)
        assert float(depth[0, 0]) == frame
        return Seeds(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2), torch.ones(2), None)

    def join(found: list[Seeds], most: int) -> None:
        joined.append((len(found), most))

    monkeypatch.setattr(map_edits, "_uncovered", uncovered)
    monkeypatch.setattr(map_edits, "_joined", join)
    depth = torch.arange(frames + 1.0)[:, None, None].expand(-1, 2, 2)
    model = Stand(
        kwargs={"metadata": {"depth": depth}}, num_points=950, device=torch.device("cpu"),
        config=SimpleNamespace(max_gaussians=1000),
    )  # fmt: skip
    static = {frame: torch.ones(2, 2, dtype=torch.bool) for frame in range(frames + 1)}
    pictures = {frame: torch.zeros(2, 2, 3) for frame in range(frames)}  # none of the last frame
    assert map_edits.add_uncovered(model, MapChange(static=static), pictures) == 0
    assert looked == list(asked)
    assert joined == [(len(asked), 50)]  # no more than there is room for
    model.num_points = 1000
    map_edits.add_uncovered(model, MapChange(static=static), pictures)
    assert looked == list(asked)


def test_joined_points_are_thinned_evenly():
    def of(first: int, count: int) -> Seeds:
        xyz = torch.arange(first, first + count)[:, None].expand(-1, 3).float()
        rgb = torch.zeros(count, 3, dtype=torch.uint8)
        return Seeds(xyz, rgb, torch.ones(count), torch.ones(count), None)

    joined = map_edits._joined([of(0, 5), of(5, 5)], 4)
    assert joined is not None
    assert joined.xyz[:, 0].tolist() == [0.0, 3.0, 6.0, 9.0]
    whole = map_edits._joined([of(0, 5), of(5, 5)], 10)
    assert whole is not None
    assert len(whole) == 10
    assert map_edits._joined([], 4) is None


@pytest.mark.parametrize(("densify", "of_gaussians"), [(True, True), (True, False), (False, True), (False, False)])
def test_gaussians_come_and_go_only_where_density_is_controlled_and_staticness_is_theirs(
    densify: bool, of_gaussians: bool, monkeypatch
):
    from das3r_ns.model import das3r

    given = MapChange(moving={0: torch.ones(2, 2, dtype=torch.bool)})
    monkeypatch.setattr(das3r, "take_maps", lambda *_: given)
    monkeypatch.setattr(das3r, "remove_ghosts", lambda *_: 3)
    monkeypatch.setattr(das3r, "add_uncovered", lambda *_: 4)
    model = Stand(
        config=SimpleNamespace(densify=densify), gauss_params={"staticness": 0} if of_gaussians else {}, _guessed=1
    )
    change = Das3rModel.take_dynamic_prob(model, {}, {})
    assert (change.removed, change.added) == ((3, 4) if densify and of_gaussians else (0, 0))
    assert model._guessed is None
