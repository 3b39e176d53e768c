"""Images that are shown twice are told from cameras that rest or creep."""

import numpy as np

from das3r_ns.predictor.preprocess.duplicate_frames import unique_frames


def shifts(position: list[float], mover: float = 0.0):
    """Flow between images that lie `position` pixels to the right; four tenths of them are an object that runs by
    `mover` pixels a frame."""

    def flow(i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        field = np.zeros((20, 30, 2), np.float32)
        field[..., 0] = position[j] - position[i]
        field[:, :12, 1] = mover * (j - i)
        return field, np.zeros((20, 30), np.float32)

    return flow


def test_a_frame_that_does_not_move_repeats_the_one_before_it():
    assert unique_frames(shifts([0, 2, 2, 4, 6, 6, 6, 8]), 8) == [0, 1, 3, 4, 7]


def test_an_object_may_run_through_a_repeat():
    assert unique_frames(shifts([0, 2, 2, 4, 6, 8], mover=3.0), 6) == [0, 1, 3, 4, 5]


def test_a_camera_that_creeps_is_not_taken_to_stand():
    # 0.02 pixels a frame: every third frame lies more than 0.05 pixels from the last that was kept.
    creeping = [0.02 * k for k in range(10)]
    assert unique_frames(shifts([*creeping, 2, 4]), 12) == [0, 3, 6, 9, 10, 11]


def test_most_frames_may_be_repeats():
    assert unique_frames(shifts([2.0 * (k // 3) for k in range(12)]), 12) == [0, 3, 6, 9]


def test_where_nothing_ever_moves_nothing_is_a_repeat():
    assert unique_frames(shifts([0.01 * k for k in range(5)]), 5) == [0, 1, 2, 3, 4]
