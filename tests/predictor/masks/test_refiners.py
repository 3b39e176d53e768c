"""Refiners: what each does to maps whose answer can be worked out by hand, and what it says when its extra is missing.

SAM 2 cannot run here (its weights are on the hub): a fake with the calls of the real video predictor takes its place.
"""

import importlib.util
import sys
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.refiners import choice, salience, sam2, u2netp
from das3r_ns.predictor.masks.refiners.build import build_refiner
from das3r_ns.predictor.masks.refiners.choice import find_weights, resolve_auto
from das3r_ns.predictor.masks.refiners.salience import combine
from das3r_ns.predictor.masks.refiners.sam2 import Sam2Refiner, next_prompt

needs_weights = pytest.mark.skipif(importlib.util.find_spec("rembg") is None, reason="needs the extra salience")

SIZE = (40, 60)
OBJECT = (slice(10, 30), slice(20, 40))


def still_flow():
    return FlowBetweenFrames(
        lambda i: np.zeros((*SIZE, 3), np.uint8), SIZE, lambda a, b: np.zeros((*SIZE, 2), np.float32)
    )


def maps(n, background, mover):
    out = np.full((n, *SIZE), background, np.float32)
    out[:, OBJECT[0], OBJECT[1]] = mover
    return out


def test_none_builds_nothing():
    assert build_refiner("none") is None


def test_auto_is_salience_where_its_weights_are_and_the_config_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert resolve_auto("auto") == "none"
    assert build_refiner("auto") is None
    assert GeometricPredictor().config.masks.refiner == "none"
    (tmp_path / "u2netp.onnx").touch()
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: found)
    assert resolve_auto("auto") == "salience"
    assert GeometricPredictorConfig().resolve_auto().masks.refiner == "salience"
    assert resolve_auto("none") == "none"
    assert resolve_auto("sam2") == "sam2"


def test_a_missing_package_is_told_when_the_predictor_is_built(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"das3r-ns\[salience\].*refiner none"):
        GeometricPredictor(GeometricPredictorConfig(masks=MaskConfig(refiner="salience")))
    monkeypatch.setitem(sys.modules, "sam2", None)
    with pytest.raises(ImportError, match=r"das3r-ns\[sam2\]"):
        GeometricPredictor(GeometricPredictorConfig(masks=MaskConfig(refiner="sam2")))


SURE = np.zeros(5, np.float32)


def test_salience_decides_where_motion_is_in_doubt():
    motion = maps(5, 0.6, 0.6)  # motion calls everything moving, but is not sure
    found = combine(motion, maps(5, 0.0, 0.9), SURE)
    assert (found[:, 10:30, 20:40] > 0.8).all()
    assert (found[:, :8] < 0.2).all()


def test_salience_that_does_not_speak_leaves_motion_as_it_is():
    motion = maps(3, 0.1, 0.7)
    np.testing.assert_allclose(combine(motion, maps(3, 0.4, 0.4), SURE[:3]), motion, atol=1e-6)


def test_in_a_scene_at_rest_salient_objects_stay_static():
    motion = maps(5, 0.02, 0.03)
    found = combine(motion, maps(5, 0.0, 1.0), SURE)
    assert found.max() < 0.05


def test_sure_motion_outweighs_salience():
    motion = maps(5, 0.01, 0.999)
    salient = maps(5, 0.0, 0.1)
    salient[:, :5, :5] = 1.0  # something else stands out, and rests
    found = combine(motion, salient, SURE)
    assert (found[:, 10:30, 20:40] > 0.9).all()
    assert (found[:, :5, :5] < 0.2).all()


def test_where_motion_is_in_doubt_the_salient_object_is_taken_though_all_around_seems_to_move():
    motion = maps(5, 0.6, 0.1)  # the sea moves, the rider whom the camera follows does not
    salient = maps(5, 0.05, 0.95)
    assert combine(motion, salient, SURE)[:, OBJECT[0], OBJECT[1]].max() < 0.5
    found = combine(motion, salient, SURE + 1)
    assert found[:, OBJECT[0], OBJECT[1]].min() > 0.6
    assert found[:, :8].max() < 0.3


def test_in_doubt_salience_that_jumps_from_object_to_object_says_nothing():
    motion = maps(5, 0.3, 0.4)
    flickers = maps(5, 0.05, 0.6)  # averaged along the flow: now this object, now that one
    np.testing.assert_array_equal(combine(motion, flickers, SURE + 1), combine(motion, flickers, SURE))


class OneAtATime:
    """A network that says how bright its input is, slowly, and minds being asked by two threads."""

    def __init__(self):
        self.asked = 0

    def setInput(self, blob):
        self.asked += 1
        time.sleep(0.01)
        self.found = blob[:, :1]

    def getUnconnectedOutLayersNames(self):
        return ("saliency",)

    def forward(self, name):
        assert self.asked == 1
        self.asked = 0
        return self.found


def test_salience_is_that_of_its_own_frame_whatever_the_number_of_threads(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(salience, "find_weights", lambda: tmp_path)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # OpenCV runs it then
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: made.append(OneAtATime()) or made[-1])
    images = np.zeros((9, *SIZE, 3), np.uint8)
    for i in range(9):
        images[i, i : i + 20, 3 * i : 3 * i + 20] = 255
    found = []
    before = torch.get_num_threads()
    monkeypatch.setattr(salience, "average_along_flow", lambda values, i, flow, offsets: values[i])
    monkeypatch.setattr(salience, "combine", lambda dynamic_prob, steady, doubt: steady)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            refine = salience.SalienceRefiner()
            found.append(refine(maps(9, 0.5, 0.5), lambda i: images[i], still_flow(), np.zeros(9, np.float32)))
    finally:
        torch.set_num_threads(before)
    assert len(made) == 3
    np.testing.assert_array_equal(found[0], found[1])
    for i in range(9):
        assert (found[0][i] > 0.5).sum() == pytest.approx(400, abs=20)
        assert found[0][i][i + 2 : i + 18, 3 * i + 2 : 3 * i + 18].min() > 0.9


def test_the_next_prompt_is_the_surest_region_and_points_inside_it():
    motion = maps(4, 0.1, 0.7)
    motion[2, OBJECT[0], OBJECT[1]] = 0.9
    motion[2, 0:2, 0:2] = 1.0  # sure but small
    nothing = np.zeros(motion.shape, bool)
    prompt = next_prompt(motion, nothing)
    assert prompt is not None
    assert prompt.frame == 2
    assert prompt.pointed.box is not None
    np.testing.assert_allclose(prompt.pointed.box.in_pixels(*SIZE), (20, 10, 40, 30), rtol=1e-6)
    (click,) = prompt.pointed.clicks
    u, v = click.in_pixels(*SIZE)
    assert 25 < u < 35
    assert 15 < v < 25
    covered = maps(4, 0, 1) > 0
    after = next_prompt(motion, covered)
    assert after is not None
    assert after.pointed.box is not None
    np.testing.assert_allclose(after.pointed.box.in_pixels(*SIZE), (0, 0, 2, 2), rtol=1e-6)
    assert next_prompt(motion, np.ones(motion.shape, bool)) is None


class FakeVideoPredictor:
    """Has the calls of `SAM2VideoPredictor`; segments, in every frame, all pixels that look like the prompted one."""

    def __init__(self):
        self.prompts = []

    @classmethod
    def from_pretrained(cls, model_id, device="cuda"):
        assert model_id.startswith("facebook/sam2")
        cls.last = cls()
        return cls.last

    def init_state(self, video_path, offload_video_to_cpu=False, offload_state_to_cpu=False):

        paths = sorted(Path(video_path).glob("*.jpg"), key=lambda path: int(path.stem))
        return {"frames": [cv2.imread(str(path))[..., ::-1].astype(int) for path in paths]}

    def add_new_points_or_box(self, inference_state, frame_idx, obj_id, points=None, labels=None, box=None):
        assert list(labels) == [1]
        self.prompts.append((frame_idx, tuple(np.asarray(points)[0]), tuple(np.asarray(box))))
        u, v = np.asarray(points)[0].astype(int)
        inference_state["colour"] = inference_state["frames"][frame_idx][v, u]

    def propagate_in_video(self, inference_state, start_frame_idx=None, reverse=False):
        n = len(inference_state["frames"])
        order = range(start_frame_idx, -1, -1) if reverse else range(start_frame_idx, n)
        for i in order:
            same = np.abs(inference_state["frames"][i] - inference_state["colour"]).sum(axis=-1) < 150
            yield i, [1], torch.from_numpy(np.where(same, 8.0, -8.0)).float()[None, None]

    def reset_state(self, inference_state):
        inference_state.pop("colour")


@pytest.fixture
def fake_sam2(monkeypatch):
    package, module = types.ModuleType("sam2"), types.ModuleType("sam2.sam2_video_predictor")
    module.SAM2VideoPredictor = FakeVideoPredictor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sam2", package)
    monkeypatch.setitem(sys.modules, "sam2.sam2_video_predictor", module)


def painted(i):
    """Twice as large as the maps: a red object, a blue one that rests, on grey."""
    image = np.full((80, 120, 3), 110, np.uint8)
    image[20:60, 40:80] = (220, 30, 30)
    image[60:80, 0:20] = (30, 30, 220)
    return image


def test_sam2_gets_a_box_and_a_point_in_pixels_of_the_image_and_its_outline_is_taken(fake_sam2):
    motion = np.full((6, *SIZE), 0.05, np.float32)
    motion[:, 12:26, 24:44] = 0.8  # where motion sees the object: shifted, and not all of it
    motion[2, 12:26, 24:44] = 0.9  # surest in the middle of the clip: carried both ways from there
    refined = Sam2Refiner()(motion, painted, still_flow(), np.zeros(len(motion), np.float32))
    ((frame, point, box),) = FakeVideoPredictor.last.prompts
    assert frame == 2
    assert box == pytest.approx((48, 24, 88, 52))
    assert 48 < point[0] < 88
    assert 24 < point[1] < 52
    truth = maps(6, 0, 1) > 0
    found = refined > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.95


def test_sam2_drops_an_object_that_hardly_moves(fake_sam2):
    motion = np.full((6, *SIZE), 0.05, np.float32)
    motion[3, 32:38, 2:8] = 0.9  # a false alarm in one frame, on the blue object
    refined = Sam2Refiner()(motion, painted, still_flow(), np.zeros(len(motion), np.float32))
    assert (refined < 0.5).all()


def test_sam2_takes_a_long_clip_in_parts_with_their_own_images(fake_sam2, monkeypatch):
    monkeypatch.setattr(sam2, "PART_FRAMES", 4)
    motion = maps(6, 0.05, 0.8)
    motion[4:] = 0.05
    motion[4:, 31:39, 1:9] = 0.8  # in the second part another object moves, in the corner

    def image(i):
        return painted(i) if i >= 4 else np.where(painted(i) == (30, 30, 220), 110, painted(i)).astype(np.uint8)

    refined = Sam2Refiner()(motion, image, still_flow(), np.zeros(len(motion), np.float32))
    assert [prompt[0] < 4 for prompt in FakeVideoPredictor.last.prompts] == [True] * 2
    assert (refined[:4, 12:28, 22:38] > 0.5).all()
    assert (refined[4:, 31:39, 1:9] > 0.5).all()
    assert (refined[4:, 12:28, 22:38] < 0.5).all()


def test_sam2_leaves_a_clip_in_which_nothing_moves_alone(fake_sam2):
    motion = maps(3, 0.05, 0.2)
    np.testing.assert_array_equal(
        Sam2Refiner()(motion, painted, still_flow(), np.zeros(len(motion), np.float32)), motion
    )


@pytest.mark.slow
def test_the_network_finds_the_dog_of_a_real_image(clips):
    if importlib.util.find_spec("rembg") is None:  # importing it would ask for packages that are not needed here
        pytest.skip("needs the extra salience")
    from das3r_ns.datasets import read_dynamic_mask, read_image

    folder = clips / "davis" / "dog"
    image = read_image(sorted((folder / "images").iterdir())[0])
    truth = read_dynamic_mask(sorted((folder / "dynamic_masks").iterdir())[0]).numpy() > 0.5
    found = salience.Salience()(image.numpy()) > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.8


@needs_weights
def test_torch_and_opencv_find_the_same_salience():
    image = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    image = cv2.resize(image, (200, 150), interpolation=cv2.INTER_CUBIC)
    by_torch, by_opencv = (salience.Salience(use_torch)(image) for use_torch in (True, False))
    assert by_opencv.max() - by_opencv.min() > 0.5  # something stands out: the comparison says something
    assert np.abs(by_torch - by_opencv).max() < 2e-3


@needs_weights
def test_weights_are_read_by_the_engine_of_opencv_5_that_gives_them(monkeypatch):
    asked = {}
    read = cv2.dnn.readNetFromONNX

    def reading(file, **options):
        asked.update(options)
        return read(file)

    monkeypatch.setattr(cv2.dnn, "ENGINE_CLASSIC", 1, raising=False)  # OpenCV 4 has but one
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", reading)
    u2netp.U2NetP.read(find_weights())
    assert asked == {"engine": 1}


@needs_weights
def test_weights_of_another_network_are_refused(monkeypatch):
    monkeypatch.setattr(u2netp, "ENCODERS", (6, 5, 4))
    with pytest.raises(ValueError, match="is not U2NetP"):
        u2netp.U2NetP.read(find_weights())


@pytest.mark.gpu
@needs_weights
def test_salience_on_a_gpu_is_that_of_the_cpu(monkeypatch):
    image = cv2.resize(np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8), (200, 150))
    on_gpu = salience.Salience()(image)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert np.abs(on_gpu - salience.Salience(use_torch=True)(image)).max() < 0.01
