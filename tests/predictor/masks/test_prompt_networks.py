"""The networks that answer prompts: their real classes, tiny and untrained, loaded from folders; and what is said where
the package or the weights are missing. What they find means nothing; its form, its places and its names do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.files import hub
from das3r_ns.predictor.base import MovingPrompt
from das3r_ns.predictor.masks.prompts import build, weights
from das3r_ns.predictor.masks.prompts.base import Box, Click, Pointed, Segmenter, Words
from das3r_ns.predictor.masks.prompts.build import (
    build_pointing,
    build_prompted_objects,
    build_segmenter,
    check_prompt,
)
from das3r_ns.predictor.masks.prompts.weights import PromptWeightsError, locate_prompt_weights

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
ASKED = [
    Words("person"),
    Pointed(Box(0.2, 0.2, 0.5, 0.9)),
    Words("white dog"),
    Pointed(clicks=(Click(0.5, 0.5), Click(0.1, 0.1, inside=False))),
    Pointed(Box(0.2, 0.2, 0.5, 0.9), (Click(0.3, 0.3),)),
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("transformers", reason="needs the extra prompt")
    from tiny_prompt_networks import write_grounding_dino, write_sam2, write_sam3

    folder = tmp_path_factory.mktemp("networks")
    return {
        "dino": write_grounding_dino(folder / "dino"),
        "sam2": write_sam2(folder / "sam2"),
        "sam3": write_sam3(folder / "sam3"),
    }


@pytest.mark.parametrize("names", [("sam2", "dino"), ("sam3",)])
def test_words_boxes_and_clicks_are_answered_in_their_order(networks, names):
    segmenter = build_segmenter(tuple(str(networks[name]) for name in names), threshold=1e-4)
    assert isinstance(segmenter, Segmenter)
    found = segmenter(IMAGE, ASKED)
    assert all(one.mask.shape == (48, 80) and one.mask.dtype == bool for one in found)
    labels = [one.label for one in found]
    assert labels[-3:] == ["", "", ""]
    assert set(labels[:-3]) == {"person", "white dog"}
    assert all(0 <= one.score <= 1 for one in found)
    # One at a time or all together: an object has its own outline, whatever else is asked.
    for k, prompt in ((-3, ASKED[1]), (-2, ASKED[3])):
        np.testing.assert_array_equal(segmenter(IMAGE, [prompt])[0].mask, found[k].mask)
    assert segmenter(IMAGE, []) == []


@pytest.mark.parametrize("names", [("sam2", "dino"), ("sam3",)])
def test_what_scores_below_the_threshold_is_not_found(networks, names):
    segmenter = build_segmenter(tuple(str(networks[name]) for name in names), threshold=1 - 1e-7)
    assert segmenter(IMAGE, [Words("person")]) == []


def test_the_words_of_a_box_are_those_whose_tokens_score_highest(networks):
    from das3r_ns.predictor.masks.prompts.grounded_sam2 import GroundedSam2, classes_of_tokens

    segmenter = GroundedSam2(networks["dino"], networks["sam2"], 0.5)
    processor = segmenter._processor
    ids = processor(images=IMAGE, text="person. white dog.", return_tensors="pt")["input_ids"][0]
    classes = classes_of_tokens(ids, processor.tokenizer, 2)
    assert classes.tolist() == [-1, 0, -1, 1, 1, -1, -1]  # [CLS] person . white dog . [SEP]
    logits, boxes = torch.full((1, 12, 32), -9.0), torch.full((1, 12, 4), 0.5)
    boxes[0, :, 2:] = 0.2
    boxes[0, 1] = torch.tensor([0.25, 0.5, 0.5, 1.0])
    logits[0, 0, 1] = 3.0  # person
    logits[0, 1, 4] = 2.0  # dog
    logits[0, 2, 1] = 2.5  # the same person again
    logits[0, 3, 2] = 9.0  # a full stop is no class

    class Fixed(torch.nn.Module):
        config = segmenter._detector.config

        def forward(self, **_):
            return type("Out", (), {"logits": logits, "pred_boxes": boxes})

    segmenter._detector = Fixed()
    (person, dog) = segmenter._detect(IMAGE, ["person", "white dog"])
    assert (person[2], dog[2]) == ("person", "white dog")
    assert person[1] == pytest.approx(torch.tensor(3.0).sigmoid().item())
    np.testing.assert_allclose(dog[0].in_pixels(48, 80), [0, 0, 40, 48], atol=1e-4)


@pytest.mark.parametrize("name", ["sam2", "sam3"])
def test_boxes_and_clicks_alone_need_no_network_for_words(networks, name):
    found = build_pointing((str(networks[name]),))(IMAGE, [ASKED[1], ASKED[3]])
    assert [one.mask.shape for one in found] == [(48, 80)] * 2


def test_words_that_cannot_be_read_one_by_one_are_refused(networks):
    from das3r_ns.predictor.masks.prompts.grounded_sam2 import GroundedSam2

    segmenter = GroundedSam2(networks["dino"], networks["sam2"], 0.5)
    with pytest.raises(ValueError, match="English nouns"):
        segmenter(IMAGE, [Words("a. b"), Words("dog")])
    with pytest.raises(ValueError, match=r"too long: .* takes 32"):
        segmenter(IMAGE, [Words("dog " * 40)])


def test_places_are_shares_of_the_image():
    np.testing.assert_allclose(Box(0.25, 0.5, 0.5, 1.0).in_pixels(40, 80), [20, 20, 40, 40])
    np.testing.assert_allclose(Click(0.25, 0.5).in_pixels(40, 80), [20, 20])
    with pytest.raises(ValueError, match="at least one click on it"):
        Pointed(clicks=(Click(0.1, 0.1, inside=False),))


def test_without_the_package_the_command_that_brings_it_is_named(monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'das3r-ns\[prompt\]'"):
        check_prompt(())
    assert build_prompted_objects(None) is None
    with pytest.raises(ImportError, match=r"das3r-ns\[prompt\]"):
        build_prompted_objects(MovingPrompt(("person",)))


def _config(folder: Path, kind: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "model.safetensors").touch()
    return folder


def test_folders_are_recognised_by_their_content_and_the_rest_is_the_default(tmp_path, monkeypatch):
    dino, sam2 = _config(tmp_path / "a", "grounding-dino"), _config(tmp_path / "b", "sam2_video")
    sam3, bert = _config(tmp_path / "c", "sam3_video"), _config(tmp_path / "d", "bert")
    assert locate_prompt_weights((str(sam2), str(dino))) == (dino, sam2)
    assert locate_prompt_weights((str(sam3),)) == (sam3, sam3)
    asked = []
    monkeypatch.setattr(weights, "cached_folder", lambda name, files: None)
    monkeypatch.setattr(weights, "fetch_folder", lambda name, patterns: asked.append(name) or sam2)
    assert locate_prompt_weights((str(dino),)) == (dino, sam2)
    assert asked == ["facebook/sam2.1-hiera-small"]
    for wrong in ((dino, dino), (sam3, sam2)):
        with pytest.raises(PromptWeightsError, match="both answer"):
            locate_prompt_weights(tuple(map(str, wrong)))
    with pytest.raises(PromptWeightsError, match=r"type 'bert'.*grounding-dino"):
        locate_prompt_weights((str(bert),))
    with pytest.raises(PromptWeightsError, match="is not a folder with"):
        locate_prompt_weights((str(tmp_path),))
    with pytest.raises(PromptWeightsError, match="do not exist"):
        locate_prompt_weights((str(tmp_path / "nowhere"),))


def test_weights_that_cannot_be_fetched_say_how_to_bring_them(monkeypatch):
    def unreachable(name, patterns):
        raise hub.HubError("no route to host")

    monkeypatch.setattr(weights, "cached_folder", lambda name, files: None)
    monkeypatch.setattr(weights, "fetch_folder", unreachable)
    with pytest.raises(
        PromptWeightsError, match=r"no route to host\n.*\n *hf download IDEA-Research/grounding-dino-tiny"
    ):
        locate_prompt_weights()


def test_sam3_is_never_fetched_and_its_licence_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "cached_folder", lambda name, files: None)
    monkeypatch.setattr(weights, "fetch_folder", lambda name, patterns: pytest.fail(f"asked for {name}"))
    with pytest.raises(PromptWeightsError, match=r"licence of its own[\s\S]*hf download facebook/sam3"):
        locate_prompt_weights(("facebook/sam3",))
    here = _config(tmp_path / "sam3", "sam3_video")
    monkeypatch.setattr(weights, "cached_folder", lambda name, files: here)
    assert locate_prompt_weights(("facebook/sam3",)).words == here


def test_what_is_in_the_cache_of_the_hub_is_used_and_a_failed_download_has_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: str(tmp_path / file))
    assert hub.cached_folder("owner/name", ("config.json", "model.safetensors")) == tmp_path
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: None)
    assert hub.cached_folder("owner/name", ("config.json",)) is None

    def unreachable(name, allow_patterns):
        raise OSError("cannot be reached\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(hub.HubError, match=r"^cannot be reached$"):
        hub.fetch_folder("owner/name", ("*.json",))
    assert hub.looks_like_repository("owner/name")
    assert not hub.looks_like_repository("a/b/c")
    assert not hub.looks_like_repository("./name")


def test_weights_that_do_not_fit_or_are_damaged_are_refused(networks, tmp_path):
    from das3r_ns.predictor.masks.prompts.loading import load_pretrained

    folder = Path(shutil.copytree(networks["sam2"], tmp_path / "sam2"))
    with pytest.raises(PromptWeightsError, match=r"does not fit Sam3Model: \d+ weights"):
        load_pretrained("Sam3Model", networks["sam2"])
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(PromptWeightsError, match=r"cannot be loaded as Sam2Model.*Fetch it again"):
        load_pretrained("Sam2Model", folder)
    with pytest.raises(ImportError, match=r"has no Sam9Model.*das3r-ns\[prompt\]"):
        load_pretrained("Sam9Model", folder)
