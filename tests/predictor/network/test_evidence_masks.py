"""When a network's own dynamic maps are given up for those from motion, and what the second alignment gets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.network import evidence_masks
from das3r_ns.predictor.network.evidence_masks import contradicts, with_masks
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.video.clip import Clip


def maps(*columns: int) -> torch.Tensor:
    """Two maps of 10x10 in which the given columns move."""
    found = torch.zeros(2, 10, 10)
    found[..., list(columns)] = 1
    return found


@pytest.mark.parametrize(
    ("own", "found", "expected"),
    [
        (maps(2, 3, 4), maps(2, 3, 4), False),
        (maps(2, 3, 4, 5), maps(2, 3, 4), False),  # three of four columns in common: 0.75
        (maps(2, 3), maps(2, 3, 4, 5), True),  # 0.5
        (maps(), maps(2), True),
        (maps(*range(10)), maps(2), True),
        (maps(), maps(), False),
    ],
)
def test_maps_contradict_where_less_than_six_tenths_overlap(own, found, expected):
    assert contradicts(own, found) is expected


def test_a_few_pixels_do_not_send_the_alignment_back():
    own, found = torch.zeros(2, 20, 20), torch.zeros(2, 20, 20)
    found[0, 0, :7] = 1  # 7 of 800 pixels, below one in a hundred
    assert not contradicts(own, found)


def test_every_pair_gets_the_map_of_its_first_frame():
    edges = torch.tensor([[0, 1], [1, 0], [2, 1]])
    points, ones = torch.zeros(3, 4, 5, 3), torch.ones(3, 4, 5)
    pairs = PairPredictions(edges, points, points, 2 * ones, 2 * ones, 0.5 * ones, torch.zeros(3, 8))
    dynamic_prob = torch.stack([torch.full((4, 5), value) for value in (0.1, 0.2, 0.3)])
    given = with_masks(pairs, dynamic_prob)
    assert given.dynamic_prob1[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert torch.equal(given.pointmap2, pairs.pointmap2)
    assert torch.equal(pairs.dynamic_prob1, 0.5 * ones)  # the pairs that were given stay as they are


def test_depth_whose_confidence_the_alignment_took_is_compared_all_the_same(monkeypatch):
    """What moves is seen through by other frames, and the cleaning leaves it no confidence."""
    seen = {}

    def decided(inputs, config, refiner, prompted):
        seen["confidence"] = inputs.prior_confidence
        return SimpleNamespace(dynamic_prob=np.zeros((2, 8, 8), np.float32))

    monkeypatch.setattr(evidence_masks, "decide_dynamic_prob", decided)
    monkeypatch.setattr(evidence_masks, "collect_evidence", lambda *_: None)
    clip = Clip(torch.zeros(2, 16, 16, 3, dtype=torch.uint8), 10.0, ("0", "1"))
    depth, confidence = torch.ones(2, 8, 8), torch.full((2, 8, 8), 5.0)
    depth[0, 0], confidence[:, 4] = 0, 0
    K = torch.tensor([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]).expand(2, 3, 3)
    cameras = (torch.eye(4).repeat(2, 1, 1), K)
    evidence_masks.masks_from_evidence(
        clip, UserPriors(), *cameras, depth, confidence, None, DisFlow(), MaskConfig(refiner="none"), None
    )
    np.testing.assert_array_equal(seen["confidence"], depth.numpy())
