"""`--masks-mode` and `--masks-prompt`: what the user's masks and words do to the predicted masks, from the option to
the scene's key."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import wall_scene

from das3r_ns.dataparser.cache import cached_scene, offers
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.scene_keys import digest_of_options, options_of_0_1_0
from das3r_ns.predictor.base import MovingPrompt, UserPriors
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.scene import write_scene


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


PROMPT = PredictionOptions(masks_prompt="Person; white  dog. person,")


def test_the_words_of_a_prompt_reach_the_predictor_once_and_in_lower_case(clip):
    _, known = read_inputs(clip / "images", replace(PROMPT, masks_prompt_mode="limit", masks_prompt_threshold=0.4))
    assert known.prompt == MovingPrompt(("person", "white dog"), "limit", (), 0.4)
    assert read_inputs(clip / "images", PredictionOptions())[1].prompt is None


def test_a_prompt_is_part_of_the_key_of_a_scene_where_it_is_given_and_only_there():
    usual = digest_of_options(PredictionOptions(), "geometric")
    changed = [
        PROMPT,
        replace(PROMPT, masks_prompt="cat"),
        replace(PROMPT, masks_prompt_mode="limit"),
        replace(PROMPT, masks_prompt_threshold=0.2),
        replace(PROMPT, masks_prompt_weights=("facebook/sam3",)),
    ]
    assert len({usual, *(digest_of_options(options, "geometric") for options in changed)}) == 1 + len(changed)
    assert digest_of_options(replace(PROMPT, masks_prompt="person, white dog"), "geometric") == digest_of_options(
        PROMPT, "geometric"
    )
    assert options_of_0_1_0(PredictionOptions(), "geometric") is not None
    assert options_of_0_1_0(PROMPT, "geometric") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"masks_prompt_mode": "limit"}, "--masks-prompt-mode says something about --masks-prompt"),
        ({"masks_prompt_weights": ("x",)}, "--masks-prompt-weights says something"),
        ({"masks_prompt_threshold": 0.2}, "--masks-prompt-threshold says something"),
        ({"masks_prompt": " , "}, r"names nothing.*person, dog"),
        ({"masks_prompt": "dog", "masks_prompt_threshold": 1.5}, r"between 0 and 1, got 1\.5"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        PredictionOptions(**options).check()


def test_a_prompt_beside_masks_for_every_frame_is_refused(clip):
    with pytest.raises(ValueError, match=r"every frame has a mask of its own.*--masks-mode add"):
        read_inputs(clip / "images", replace(PROMPT, masks=clip / "masks"))
    _, known = read_inputs(clip / "images", replace(PROMPT, masks=clip / "masks", masks_mode="add"))
    assert known.prompt is not None


def test_what_a_prompt_needs_is_asked_for_before_a_frame_is_read(monkeypatch, clip, tmp_path):
    monkeypatch.setattr("das3r_ns.dataparser.cache.read_inputs", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("das3r_ns.predictor.masks.prompts.build.importlib.util.find_spec", lambda name: None)
    options = replace(PROMPT, geometric=GeometricPredictorConfig(masks=MaskConfig(refiner="none"), matching="sift"))
    with pytest.raises(ImportError, match=r"das3r-ns\[prompt\]"):
        cached_scene(clip / "images", options, tmp_path / "cache")


def test_a_prompt_cannot_change_a_scene_that_is_there(tmp_path):
    scene = wall_scene(3, (32, 48))
    write_scene(scene, torch.zeros(3, 32, 48, 3, dtype=torch.uint8), tmp_path / "scene")
    with pytest.raises(ValueError, match="--masks-prompt"):
        cached_scene(tmp_path / "scene", PROMPT, tmp_path / "cache")
