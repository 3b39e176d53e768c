"""Frames of a training step: nerfstudio's order and cameras, without making them anew."""

import torch
from tiny_run import FRAMES, scene_from_truth, tiny_config

from das3r_ns.datamanager import Das3rDatamanager


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
            assert camera.metadata["cam_idx"] == index
            torch.testing.assert_close(
                camera.camera_to_worlds[0], datamanager.train_dataset.cameras.camera_to_worlds[index]
            )
            torch.testing.assert_close(data["image"], datamanager.cached_train[index]["image"])
    data["image"] = None
    assert datamanager.cached_train[index]["image"] is not None, "a step must not change what is kept"
