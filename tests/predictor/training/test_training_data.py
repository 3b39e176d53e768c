"""Which pairs are drawn, in which order, how they are cropped, and what happens to bad files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.predictor.training.data.loading import PairBatch, PairDataset, collate, make_loader
from das3r_ns.predictor.training.data.order import Draw, Order
from das3r_ns.predictor.training.data.sources import BadDataError, Frame, NothingLeftError, Pair, ProblemLog
from das3r_ns.predictor.training.data.strides import pool_of_pairs, stride_frequencies, stride_quotas
from das3r_ns.predictor.training.data.views import (
    AugmentConfig,
    brighten,
    crop_box,
    crop_intrinsics,
    make_view,
    nearest,
    saturate,
    stretch,
    turn_hue,
)

STILL = AugmentConfig(crop=0.0, enlarge=0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
ORDER = Order(pool_sizes=(50, 7), pairs_per_epoch=24, global_batch=8, sizes=((32, 48), (48, 48)), seed=3)


def frame(height: int = 40, width: int = 60, cx: float = 30.0, cy: float = 20.0) -> Frame:
    """A frame whose red is its column, green its row, depth its column plus 1."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack((4 * columns, 4 * rows, 0 * rows), axis=-1).astype(np.uint8)
    K = np.array([[50.0, 0, cx], [0, 50.0, cy], [0, 0, 1]], np.float32)
    depth = (columns + 1).astype(np.float32)
    return Frame(rgb, depth, (columns >= 30).astype(np.uint8), K, np.eye(4, dtype=np.float32))


class MemorySource:
    """A set of one sequence; frame numbers in `bad` cannot be read."""

    def __init__(self, num_frames: int = 20, bad: tuple[int, ...] = ()) -> None:
        self.name, self.problems, self.bad = "memory", (), bad
        self.pairs = pool_of_pairs([list(range(num_frames))], max_stride=3, seed=0)

    def image_size(self, pair: Pair) -> tuple[int, int]:
        return frame().depth.shape  # type: ignore[return-value]

    def read(self, pair: Pair) -> tuple[Frame, Frame]:
        for number in (pair.first, pair.second):
            if number in self.bad:
                raise BadDataError(Path(f"frame_{number}.png"), "cannot be read")
        return tuple(replace(frame(), depth=frame().depth + number) for number in (pair.first, pair.second))  # type: ignore[return-value]


def test_stride_frequencies_are_the_published_ones():
    np.testing.assert_allclose(stride_frequencies(9), [0.5, 0.5625, 0.625, 0.6875, 0.75, 0.8125, 0.875, 0.9375, 1.0])


def test_quotas_keep_the_frequencies_where_there_are_enough_pairs_and_take_all_where_there_are_not():
    available, frequencies = np.array([100, 100, 40]), np.array([0.5, 0.75, 1.0])
    assert stride_quotas(available, frequencies).tolist() == [20, 30, 40]
    assert stride_quotas(np.array([5, 100, 40]), frequencies).tolist() == [5, 30, 40]
    assert stride_quotas(np.array([10, 8, 0]), frequencies).tolist() == [5, 8, 0]  # too short for the longest stride
    assert stride_quotas(np.array([0, 0, 0]), frequencies).tolist() == [0, 0, 0]


def test_the_last_frame_of_a_sequence_is_drawn_and_first_frames_are_even():
    pairs = pool_of_pairs([list(range(21))], max_stride=9, seed=0)
    assert all(pair.first % 2 == 0 and pair.second <= 20 for pair in pairs)
    assert Pair(0, 12, 20) in pool_of_pairs([list(range(21))], max_stride=8, seed=0)  # stride 8, ends on the last


def test_a_pair_needs_both_its_frames():
    pairs = pool_of_pairs([[0, 1, 2, 4, 5]], max_stride=3, seed=0)
    assert all({pair.first, pair.second} <= {0, 1, 2, 4, 5} for pair in pairs)
    assert Pair(0, 0, 3) not in pairs


def test_an_epoch_draws_no_pair_twice_before_all_were_drawn():
    draws = [draw for step in range(ORDER.steps_per_epoch) for draw in ORDER.step(step)]
    assert [draw.position for draw in draws] == list(range(24))
    first, second = ([d.pair for d in draws if d.source == source] for source in (0, 1))
    assert len(first) == len(second) == 12  # equal shares
    assert len(set(first)) == 12
    assert set(np.bincount(second, minlength=7).tolist()) == {1, 2}
    assert [d.pair for d in ORDER.step(3)] != [d.pair for d in ORDER.step(0)]  # the next epoch is another permutation


def test_the_global_batch_is_the_same_however_it_is_spread():
    alone = [list(part) for part in ORDER.batches(range(4), batch_size=8, process=0, processes=1)]
    accumulated = list(ORDER.batches(range(4), batch_size=2, process=0, processes=1))
    spread = [list(ORDER.batches(range(4), batch_size=2, process=p, processes=2)) for p in (0, 1)]
    for step in range(4):
        assert [draw for part in accumulated[4 * step : 4 * step + 4] for draw in part] == alone[step]
        assert [draw for p in (0, 1) for part in spread[p][2 * step : 2 * step + 2] for draw in part] == alone[step]
        assert len({draw.size for draw in alone[step]}) == 1  # one shape of image in a step


def test_a_plan_without_a_step_is_refused():
    with pytest.raises(ValueError, match=r"--data\.pairs-per-epoch"):
        replace(ORDER, pairs_per_epoch=7)


def test_a_view_is_centred_on_the_principal_point_and_truth_stays_on_its_pixels():
    view = make_view(frame(cx=26.0), (16, 16), STILL, np.random.default_rng(0))
    # The principal point is 26 px from the left and 20 from the top of a 60x40 image: the window is 40x40 around it.
    assert crop_box(frame(cx=26.0), (16, 16), STILL, None) == (6.0, 0.0, 46.0, 40.0)
    np.testing.assert_allclose(view.K, [[20, 0, 8], [0, 20, 8], [0, 0, 1]], atol=1e-5)
    column_of = view.depth - 1  # the depth is the column of the frame, so it tells where a pixel came from
    np.testing.assert_array_equal(column_of[0], np.floor(6 + (np.arange(16) + 0.5) * 2.5))
    np.testing.assert_allclose(view.rgb[8, 3:-3, 0] / 4, (6 + (np.arange(16) + 0.5) * 2.5 - 0.5)[3:-3], atol=0.5)
    np.testing.assert_array_equal(view.dynamic[0], column_of[0] >= 30)


def test_the_box_keeps_the_published_bounds():
    config, rng, big = AugmentConfig(), np.random.default_rng(0), frame(400, 600, 300.0, 200.0)
    scales = []
    for _ in range(300):
        left, top, right, bottom = crop_box(big, (288, 432), config, rng)
        assert (left + right, top + bottom) == pytest.approx((600, 400))
        scales.append((right - left) / 600)
    assert 0.9 * 288 / (288 + 15) - 1e-6 < min(scales) < 0.88
    assert 0.98 < max(scales) <= 1


def test_intrinsics_of_a_crop_project_to_the_same_place():
    box, size = (6.0, 4.0, 46.0, 36.0), (16, 20)
    K, cropped = frame().K, crop_intrinsics(frame().K, (6.0, 4.0, 46.0, 36.0), (16, 20))
    point = np.array([0.1, -0.05, 1.0])
    u, v = (K @ point)[:2]
    np.testing.assert_allclose((cropped @ point)[:2], [(u - box[0]) * size[1] / 40, (v - box[1]) * size[0] / 32])


def test_nearest_takes_the_value_at_the_centre_of_each_pixel():
    values = np.arange(6)[None].repeat(2, axis=0)
    assert nearest(values, (0.0, 0.0, 6.0, 2.0), (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest(values, (0.0, 0.0, 6.0, 2.0), (1, 2)).tolist() == [[1, 4]]


def test_jitter_is_seeded_and_touches_colours_only():
    views = [make_view(frame(), (32, 48), AugmentConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0].rgb, views[1].rgb)
    assert (views[0].rgb != views[2].rgb).any()
    colours_only = replace(AugmentConfig(), crop=0.0, enlarge=0)
    still, jittered = (make_view(frame(), (32, 48), c, np.random.default_rng(1)) for c in (STILL, colours_only))
    np.testing.assert_array_equal(still.depth, jittered.depth)
    assert np.abs(still.rgb.astype(int) - jittered.rgb).max() > 20


def test_colour_changes_are_those_of_torchvision():
    from PIL import Image
    from torchvision.transforms import functional

    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(rgb)
    for found, expected, tolerance in (
        (brighten(rgb, 1.3), functional.adjust_brightness(image, 1.3), 1),
        (stretch(rgb, 0.6), functional.adjust_contrast(image, 0.6), 2),
        (saturate(rgb, 1.4), functional.adjust_saturation(image, 1.4), 2),
        (turn_hue(rgb, -0.07), functional.adjust_hue(image, -0.07), 12),  # both count hues in 256ths, rounded
    ):
        assert np.abs(found.astype(int) - np.asarray(expected)).max() <= tolerance
        assert np.abs(found.astype(int) - rgb).max() > 20


def test_the_same_draw_gives_the_same_views_in_any_process():
    dataset = PairDataset([MemorySource()], AugmentConfig(), seed=5)
    order = replace(ORDER, pool_sizes=(len(dataset.sources[0].pairs),), sizes=((32, 48),))
    plans = [list(order.batches(range(1, 3), 4, 0, 1)) for _ in range(2)]
    here, there = (
        list(make_loader(dataset, plan, workers, torch.device("cpu"))) for plan, workers in zip(plans, (0, 2))
    )
    assert len(here) == len(there) == 4
    for a, b in zip(here, there):
        for view_a, view_b in zip(a.batch, b.batch):
            for values_a, values_b in zip(view_a, view_b):
                assert torch.equal(values_a, values_b)


def test_a_bad_pair_is_replaced_reported_once_and_the_replacement_is_always_the_same(capsys):
    dataset = PairDataset([MemorySource(bad=(2,))], None, seed=0)
    pairs = dataset.sources[0].pairs
    draw = Draw(0, next(i for i, pair in enumerate(pairs) if pair.first == 2), (32, 48))
    first, again = dataset[draw], dataset[draw]
    np.testing.assert_array_equal(first.view1.depth, again.view1.depth)
    assert {problem.path for problem in first.problems} == {"frame_2.png"}
    log = ProblemLog()
    log.add(first.problems)
    log.add(again.problems)
    assert len(log) == 1
    assert capsys.readouterr().out.count("frame_2.png") == 1


def test_a_set_of_which_nothing_can_be_read_is_an_error_that_names_a_file():
    dataset = PairDataset([MemorySource(num_frames=6, bad=tuple(range(6)))], None, seed=0)
    with pytest.raises(NothingLeftError, match=r"nothing is left.*\n.*frame_\d.png: cannot be read"):
        dataset[Draw(0, 0, (32, 48))]


def test_truth_is_in_camera_1_far_and_unknown_pixels_do_not_count():
    near, far = frame(), frame()
    near.depth[0, 0], far.depth[:] = 0.0, 100.0
    far.dynamic[0] = 255
    moved = replace(far, T_world_camera=np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32))

    class Two(MemorySource):
        def read(self, pair: Pair) -> tuple[Frame, Frame]:
            return near, moved

    loaded = collate([PairDataset([Two()], None, 0)[Draw(0, 0, (40, 60))]])
    truth1, truth2 = PairBatch(*loaded.batch).truths()
    assert not truth1.valid[0, 0, 0]
    assert truth1.valid.sum() == 40 * 60 - 1
    assert not truth2.valid.any()
    assert truth2.dynamic[0, 0].isnan().all()
    # Pixel (column 30, row 20) has its centre half a pixel right of and below the principal point.
    torch.testing.assert_close(truth1.pointmap[0, 20, 30], torch.tensor([0.31, 0.31, 31.0]))
    swapped = loaded.batch.symmetrised().truths()
    torch.testing.assert_close(swapped[1].pointmap[1, 20, 30], torch.tensor([0.31 - 2, 0.31, 31.0]))
