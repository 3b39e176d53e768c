"""What is laid over a render, by hand: a frame seen from its own camera is its image, from elsewhere it is moved."""

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from das3r_ns.viewer.frames import FrameView
from das3r_ns.viewer.layers import MOVING_OPACITY, TINT, TINT_RGB, beside, frame_coordinates, layers, sample

HEIGHT, WIDTH, FOCAL = 12, 16, 20.0


def view_of(x: float = 0.0, height: int = HEIGHT, width: int = WIDTH, focal: float = FOCAL) -> Cameras:
    """A camera at (x, 0, 0) that looks along -z, as OpenGL has it."""
    pose = torch.eye(4)[None, :3]
    pose[0, 0, 3] = x
    one = torch.ones(1, 1)
    return Cameras(
        camera_to_worlds=pose,
        fx=focal * one,
        fy=focal * one,
        cx=width / 2 * one,
        cy=height / 2 * one,
        width=(width * one).long(),
        height=(height * one).long(),
        camera_type=CameraType.PERSPECTIVE,
    )


@pytest.fixture
def frame() -> FrameView:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    moving = torch.zeros(HEIGHT // 2, WIDTH // 2)
    moving[2:4, 2:5] = 1
    T_camera_world = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return FrameView(T_camera_world, K, image, moving, moving)


@pytest.mark.parametrize("depth", [0.01, 1.0, 300.0])
def test_from_its_own_camera_a_frame_is_its_image_at_any_depth(frame, depth):
    places, inside = frame_coordinates(view_of(), torch.full((HEIGHT, WIDTH, 1), depth), frame)
    image = sample(torch.from_numpy(frame.image).float(), places)
    torch.testing.assert_close(image, torch.from_numpy(frame.image).float(), atol=0.05, rtol=0)
    assert bool((inside == 1).all())


def test_a_step_to_the_right_moves_the_frame_to_the_left_as_its_depth_says(frame):
    # A point at depth d moves by focal * step / d = 20 * 0.2 / 2 = 2 pixels.
    places, inside = frame_coordinates(view_of(x=0.2), torch.full((HEIGHT, WIDTH, 1), 2.0), frame)
    image = sample(torch.from_numpy(frame.image).float(), places)
    torch.testing.assert_close(image[:, :-2], torch.from_numpy(frame.image).float()[:, 2:], atol=0.05, rtol=0)
    assert bool((inside[:, :-2] == 1).all())
    assert bool((inside[:, -2:] == 0).all())


def test_what_lies_behind_the_frame_is_not_in_it(frame):
    behind = view_of()
    behind.camera_to_worlds[0, 2, 3] = 5.0  # five units behind; a surface at 3 stands between the two
    inside = frame_coordinates(behind, torch.full((HEIGHT, WIDTH, 1), 3.0), frame)[1]
    assert bool((inside == 0).all())


def test_layers_are_the_input_the_map_and_a_tint_of_what_was_removed(frame):
    rgb = torch.full((HEIGHT, WIDTH, 3), 0.5)
    background = torch.zeros(HEIGHT, WIDTH, 3)
    shown = layers(view_of(), rgb, torch.ones(HEIGHT, WIDTH, 1), background, frame, None)
    assert list(shown)[-1] == "input"
    image = torch.from_numpy(frame.image) / 255
    torch.testing.assert_close(shown["input"], image, atol=2e-4, rtol=0)
    assert shown["dynamic_prob"].shape == (HEIGHT, WIDTH, 1)
    assert float(shown["dynamic_prob"][6, 7]) == pytest.approx(1, abs=1e-4)
    assert float(shown["dynamic_prob"][0, 0]) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(shown["removed"][0], rgb[0])
    tinted = (1 - TINT) * image[6, 7] + TINT * torch.tensor(TINT_RGB)
    expected = (1 - MOVING_OPACITY) * 0.5 + MOVING_OPACITY * tinted
    torch.testing.assert_close(shown["removed"][6, 7], expected, atol=2e-3, rtol=0)


def test_culled_gaussians_are_part_of_what_was_removed(frame):
    rgb = torch.zeros(HEIGHT, WIDTH, 3)
    culled = torch.zeros(HEIGHT, WIDTH, 4)
    culled[0, 0] = torch.tensor([0.0, 0.25, 0.0, 0.5])  # green at half opacity
    removed = layers(view_of(), rgb, torch.ones(HEIGHT, WIDTH, 1), rgb, frame, culled)["removed"]
    tinted = (1 - TINT) * torch.tensor([0.0, 0.5, 0.0]) + TINT * torch.tensor(TINT_RGB)
    torch.testing.assert_close(removed[0, 0], 0.5 * MOVING_OPACITY * tinted)
    assert float(removed[0, 1].abs().max()) == 0


@pytest.mark.parametrize("size", [(12, 16), (7, 9), (1, 1)])
def test_beside_shows_both_whole_at_half_size(size):
    left, right = torch.full((*size, 3), 0.25), torch.full((*size, 3), 0.75)
    both = beside(left, right, torch.zeros(*size, 3))
    assert both.shape == left.shape
    if size == (12, 16):
        assert bool((both[3:9, :8] == 0.25).all())
        assert bool((both[3:9, 8:] == 0.75).all())
        assert bool((both[:3] == 0).all())
        assert bool((both[9:] == 0).all())
