"""Pair graphs against recorded sets and worked examples."""

from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.predictor.network.pairs import loop_pairs
from das3r_ns.predictor.network.settings import PairGraph


@pytest.fixture(scope="module")
def fixture(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "alignment.npz") as stored:
        return {key: stored[key] for key in stored.files if key.startswith("graph/")}


def graph_of(name: str) -> PairGraph:
    kind, *rest = name.split("-")
    return PairGraph(kind=kind, window=int(rest[0]) if rest else 5, cyclic="noncyclic" not in rest)  # type: ignore[arg-type]


def test_graphs_are_exactly_the_recorded_sets(fixture):
    recorded = [key for key in fixture if key.rpartition("/n")[2].isdigit()]
    assert len(recorded) == 12
    for key in recorded:
        name, _, count = key.removeprefix("graph/").partition("/n")
        edges = graph_of(name).edges(int(count))
        assert len(set(edges)) == len(edges)
        assert set(edges) == set(map(tuple, fixture[key].tolist())), key


@pytest.mark.parametrize("num_frames", range(2, 13))
def test_short_clips_stay_non_cyclic(num_frames):
    # The published rule loses "noncyclic" below 10 frames and pairs the last frame with the first (fault 3).
    distances = {j - i for i, j in PairGraph().edges(num_frames) if i < j}
    assert distances == {d for d in (1, 3, 5, 7, 9) if d < num_frames}
    lengths = [j - i for i, j in PairGraph().edges(num_frames)]
    assert sum(lengths) == 0, "every pair in both directions"


def test_two_frames_make_one_pair_in_both_directions():
    assert PairGraph().edges(2) == [(0, 1), (1, 0)]


def test_each_kind_looks_ahead_at_its_own_distances():
    def ahead(**settings) -> list[int]:
        return [j for i, j in PairGraph(**settings).edges(20) if i == 0]

    assert ahead(kind="swin", window=3) == [1, 2, 3]
    assert ahead(kind="swinstride", window=3) == [1, 3, 5]
    assert ahead(kind="logspaced", window=5) == [1, 2, 4, 8, 16]
    assert ahead(kind="complete") == list(range(1, 20))
    assert ahead(kind="swin", window=2, cyclic=True) == [1, 2, 18, 19]


def test_loops_are_added_in_both_directions():
    edges = PairGraph(window=1).edges(30, loops=((28, 2),))
    assert (2, 28) in edges
    assert (28, 2) in edges
    with pytest.raises(ValueError, match=r"\(3, 30\)"):
        PairGraph().edges(30, loops=((3, 30),))


@pytest.mark.parametrize(("settings", "num_frames"), [({}, 1), ({"window": 0}, 5)])
def test_nothing_to_pair_is_an_error(settings, num_frames):
    with pytest.raises(ValueError, match=r"need|needs"):
        PairGraph(**settings).edges(num_frames)


def test_a_camera_that_comes_back_is_found_once():
    # Out and back along a half circle of views: frame k looks like frame 39 - k.
    angle = torch.cat([torch.arange(20), torch.arange(20).flip(0)]) / 19 * torch.pi
    descriptors = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], dim=1)
    found = loop_pairs(descriptors, min_distance=10, max_pairs=5)
    assert found
    for i, j in found:
        assert abs(i + j - 39) <= 1
        assert j - i >= 10
    assert loop_pairs(descriptors, min_distance=10, max_pairs=0) == ()
    assert loop_pairs(descriptors[:12], min_distance=11, max_pairs=5, min_similarity=0.99) == ()


def test_no_frame_is_paired_with_itself():
    same = torch.ones(6, 3) + torch.arange(6)[:, None] * torch.tensor([1.0, -1.0, 0.0])
    found = loop_pairs(same, min_distance=0, max_pairs=20, min_similarity=-1.0)
    assert len(found) > 5
    assert all(i < j for i, j in found)
