"""Frames of a training step: nerfstudio's order and cameras, without making them anew."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from tiny_run import FRAMES, scene_from_truth, tiny_config

from das3r_ns.datamanager import Das3rDatamanager
from das3r_ns.dataparser.frame_store import AHEAD, FrameStore, _Staging, frame_bytes


def test_every_frame_comes_once_a_round_with_its_own_camera_and_image(tmp_path):
    config = tiny_config("das3r", scene_from_truth(tmp_path / "scene"), tmp_path / "out")
    settings = config.pipeline.datamanager
    settings.data = config.data
    datamanager = settings.setup(device="cpu")
    assert isinstance(datamanager, Das3rDatamanager)
    frames = len(datamanager.train_dataset)
    assert 0 < frames <= FRAMES
    rounds = [[datamanager.next_train(0) for _ in range(frames)] for _ in range(2)]
    for steps in rounds:
        assert sorted(data["image_idx"] for _, data in steps) == list(range(frames))
        for camera, data in steps:
            index = data["image_idx"]
            assert (camera.metadata or {})["cam_idx"] == index
            torch.testing.assert_close(
                camera.camera_to_worlds[0], datamanager.train_dataset.cameras.camera_to_worlds[index]
            )
            torch.testing.assert_close(data["image"], datamanager.cached_train[index]["image"])
    data["image"] = None
    assert datamanager.cached_train[index]["image"] is not None, "a step must not change what is kept"


class Images(InputDataset):
    """A dataset that counts how often each frame is read."""

    def __init__(self, frames: int = 6, size: tuple[int, int] = (4, 8)) -> None:
        self.reads = [0] * frames
        names = [Path(f"{i}.png") for i in range(frames)]
        self._dataparser_outputs = SimpleNamespace(image_filenames=names)  # type: ignore[assignment]
        column = torch.ones(frames, 1, dtype=torch.long)
        self.cameras = SimpleNamespace(height=size[0] * column, width=size[1] * column)  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.reads)

    def get_data(self, image_idx: int, image_type: str = "float32") -> dict[str, Any]:
        assert image_type == "uint8"
        frame = image_idx
        self.reads[frame] += 1
        return {
            "image_idx": frame,
            "image": torch.full((4, 8, 3), frame, dtype=torch.uint8),
            "mask": torch.ones(4, 8, 1, dtype=torch.bool),
        }


FRAME_BYTES = 4 * 8 * 4


def store(images: Images, frames_kept: float) -> FrameStore:
    return FrameStore(images, "uint8", torch.device("cpu"), int(frames_kept * FRAME_BYTES), 0)  # type: ignore[arg-type]


def test_frames_that_fit_are_read_once_and_the_others_each_time():
    images = Images()
    frames = store(images, 2.5)
    assert frame_bytes(images, "uint8") == FRAME_BYTES  # type: ignore[arg-type]
    for _ in range(3):
        for frame in (3, 0, 5, 1, 2, 4):
            data = frames[frame]
            assert data["image_idx"] == frame
            assert bool((data["image"] == frame).all())
    assert images.reads == [1, 3, 3, 1, 3, 3], "the first two to come stay"


def test_frames_are_fetched_ahead_of_their_turn_but_only_a_few():
    images = Images(frames=40)
    frames = store(images, 0)
    frames.prefetch(range(40))
    frames._pool.shutdown(wait=True)
    assert images.reads == [1] * AHEAD + [0] * (40 - AHEAD)
    for frame in range(AHEAD):
        assert bool((frames[frame]["image"] == frame).all())
    assert sum(images.reads) == AHEAD, "fetched, not read again"


def test_a_frame_whose_files_changed_is_read_again():
    images = Images()
    frames = store(images, 2)
    assert [frames[i]["image_idx"] for i in (0, 1)] == [0, 1]
    frames.prefetch([2])
    for frame in (1, 2, 5):
        frames.forget(frame)
        frames[frame]
    assert [images.reads[i] for i in (0, 1, 2, 5)] == [1, 2, 2, 1]
    frames[1]
    assert images.reads[1] == 2, "it is kept again"


def test_an_image_of_another_size_is_named():
    frames = store(Images(size=(5, 8)), 2)
    with pytest.raises(ValueError, match=r"3\.png has 8x4 pixels, its camera is for 8x5"):
        frames[3]


def test_a_frame_passes_through_pinned_memory_unchanged():
    staging = object.__new__(_Staging)
    staging._bytes = torch.zeros(4 * 8 * 3 + 4 * 8 + 16, dtype=torch.uint8)
    data = Images().get_data(7 % 6, "uint8")
    data["depth"] = torch.rand(100)
    passed = staging.filled(data)
    assert passed["image"].untyped_storage().data_ptr() == staging._bytes.untyped_storage().data_ptr()
    assert passed["depth"] is data["depth"], "no room for it"
    for name in ("image", "mask"):
        assert passed[name].dtype == data[name].dtype
        assert torch.equal(passed[name], data[name])


def test_images_beyond_the_memory_are_streamed_and_training_sees_the_same(tmp_path, capsys):
    config = tiny_config("das3r", scene_from_truth(tmp_path / "scene"), tmp_path / "out")
    settings = config.pipeline.datamanager
    settings.data, settings.cpu_cache_gib = config.data, 3 * 48 * 64 * 4 / 2**30
    streamed = settings.setup(device="cpu")
    plenty = copy.deepcopy(settings)
    plenty.cpu_cache_gib = None
    whole = plenty.setup(device="cpu")
    for _ in range(2 * FRAMES):
        (_, one), (_, other) = streamed.next_train(0), whole.next_train(0)
        assert one["image_idx"] == other["image_idx"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
    assert len(streamed.cached_train._kept) == 3
    assert f"Images: {FRAMES} frames" in capsys.readouterr().out
    evaluated = streamed.fixed_indices_eval_dataloader
    assert [data["image_idx"] for _, data in evaluated] == list(range(FRAMES))
    assert streamed.get_train_rays_per_batch() == 48 * 64
    settings.gpu_cache_gib = -1.0
    with pytest.raises(ValueError, match="gpu-cache-gib must not be negative"):
        settings.setup(device="cpu")


@pytest.mark.gpu
def test_frames_that_pass_through_pinned_memory_reach_the_gpu_unmixed():
    images = Images(frames=40)
    frames = FrameStore(images, "uint8", torch.device("cuda"), 2 * FRAME_BYTES, 5 * FRAME_BYTES)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    for _ in range(3):
        shown = []
        for at, frame in enumerate(order):
            shown.append(frames[frame]["image"])
            frames.prefetch(order[at + 1 :])
        assert [int(image.unique()) for image in shown] == order, "a buffer was written over before it was sent"
    assert len(frames._kept) == 2
    assert len(frames._decoded) == 5
