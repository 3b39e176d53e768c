"""`--masks-mode`: what the user's masks do to the predicted ones, from the option to the scene's key."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from das3r_ns.dataparser.cache import offers
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.scene_keys import digest_of_options
from das3r_ns.predictor.base import UserPriors


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((64, 80), np.uint8)
    mask[20:40, 30:50] = 255
    for i in range(4):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), rng.integers(0, 256, (64, 80, 3)).astype(np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), mask)
    return tmp_path


def test_the_mode_reaches_the_predictor(clip):
    for mode in ("replace", "add", "subtract", "intersect"):
        _, known = read_inputs(clip / "images", PredictionOptions(masks=clip / "masks", masks_mode=mode))
        assert known.mask_mode == mode
        assert known.all_masks_given == (mode == "replace")


def test_what_a_mask_subtracts_may_be_followed_by_the_cameras():
    mask = torch.ones(1, 4, 4)
    assert UserPriors(dynamic_mask=mask, mask_mode="subtract").excluded_mask is None
    assert UserPriors(dynamic_mask=mask, mask_mode="add").excluded_mask is mask


def test_the_mode_is_part_of_the_key_of_a_scene_and_the_default_leaves_it_as_it_was(clip):
    options = PredictionOptions(masks=clip / "masks")
    keys = {
        digest_of_options(replace(options, masks_mode=mode), "geometric") for mode in ("replace", "add", "subtract")
    }
    assert len(keys) == 3


def test_a_mode_without_masks_is_refused():
    with pytest.raises(ValueError, match=r"--masks-mode add .* --masks is not given"):
        PredictionOptions(masks_mode="add").check()


@pytest.mark.parametrize(("doubts", "here", "offered"), [(["weak"], True, 1), (["weak"], False, 0), ([], True, 0)])
def test_the_network_is_offered_where_the_geometric_predictor_doubts_and_its_weights_are_here(
    monkeypatch, doubts, here, offered
):
    monkeypatch.setattr("das3r_ns.predictor.network.weights_source.weights_available", lambda source: here)
    lines = offers({"clip": {"doubts": doubts}}, PredictionOptions(), "geometric")
    assert len(lines) == offered
    assert all("forbids commercial use" in line and "--predictor network" in line for line in lines)
