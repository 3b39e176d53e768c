"""Masks in every form in which people store them come out as what moves, or are refused with what to do."""

import json
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from fakes import write_images
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_masks import read_masks
from das3r_ns.dataparser.mask_files import open_masks
from das3r_ns.dataparser.mask_layers import layer_of_array, read_layer
from das3r_ns.dataparser.mask_values import Evidence, Layer, MaskError
from das3r_ns.dataparser.matching_result import MatchError
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.video.config import VideoConfig

N, SIZE = 6, (48, 64)


def truth(size=SIZE) -> np.ndarray:
    """Two objects: one wanders, one comes in the second half."""
    masks = np.zeros((N, *size), np.uint8)
    for i in range(N):
        masks[i, 8:24, 4 * i : 4 * i + 16] = 1
        if i >= N // 2:
            masks[i, 30:44, 40:60] = 3
    return masks


def save(folder: Path, images, suffix="png", **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        image.save(folder / f"{i:05d}.{suffix}", **options)
    return folder


def rgba(rgb: int, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack((*[np.full_like(alpha, rgb)] * 3, alpha)))


def coloured(labels: np.ndarray, background=(0, 0, 0)) -> np.ndarray:
    colours = np.zeros((4, 3), np.uint8)
    colours[0], colours[1], colours[3] = background, (128, 0, 0), (0, 0, 255)
    return colours[labels]


def palette(labels: np.ndarray, colours=(0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0)) -> Image.Image:
    image = Image.fromarray(labels, mode="P")
    image.putpalette(list(colours))
    return image


def photo(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


WAYS = {
    "0 and 255": lambda m: (m > 0).astype(np.uint8) * 255,
    "0 and 1": lambda m: (m > 0).astype(np.uint8),
    "0 and 128": lambda m: (m > 0).astype(np.uint8) * 128,
    "1 bit": lambda m: Image.fromarray(m > 0),
    "object numbers": lambda m: m,
    "spread object numbers": lambda m: m * 60,
    "grey levels of objects up to white": lambda m: m * 85,
    "palette": palette,
    "palette of black and white": lambda m: palette((m > 0).astype(np.uint8), (0,) * 3 + (255,) * 3),
    "black and white palette the other way round": lambda m: palette((m == 0).astype(np.uint8), (255,) * 3 + (0,) * 3),
    "RGB": lambda m: np.repeat((m > 0).astype(np.uint8)[..., None] * 255, 3, axis=2),
    "colours on black": coloured,
    "colours on white": lambda m: coloured(m, (255, 255, 255)),
    "colours on grey": lambda m: coloured(m, (90, 90, 90)),
    "black with alpha": lambda m: rgba(0, (m > 0).astype(np.uint8) * 255),
    "white with alpha": lambda m: rgba(255, (m > 0).astype(np.uint8) * 255),
    "cut-out": lambda m: Image.fromarray(np.dstack((photo(0), (m > 0).astype(np.uint8) * 255))),
    "opaque RGBA": lambda m: Image.fromarray(np.dstack((*[(m > 0).astype(np.uint8) * 255] * 3, np.full_like(m, 255)))),
    "grey with alpha": lambda m: Image.fromarray(np.dstack((np.zeros_like(m), (m > 0).astype(np.uint8) * 255)), "LA"),
    "16-bit": lambda m: Image.fromarray((m > 0).astype(np.uint16) * 65535),
    "16-bit instances": lambda m: Image.fromarray(m.astype(np.uint16) * 1000 + (m > 0).astype(np.uint16) * 26000),
    "16-bit small numbers": lambda m: Image.fromarray(m.astype(np.uint16)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_store_masks(tmp_path, way):
    save(tmp_path / "masks", [WAYS[way](mask) for mask in truth()])
    _, known = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=tmp_path / "masks"))
    assert known.dynamic_mask is not None
    torch.testing.assert_close(known.dynamic_mask, torch.from_numpy(truth() > 0).float())
    assert known.all_masks_given


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif", "bmp"])
def test_other_kinds_of_files(tmp_path, suffix):
    save(tmp_path / "masks", [(mask > 0).astype(np.uint8) * 255 for mask in truth()], suffix)
    masks = open_masks(tmp_path / "masks")
    moving = read_masks(masks, tuple(range(N)), SIZE, False).moving.numpy()
    assert ((moving > 0.5) != (truth() > 0)).mean() < 0.01


ARRAYS = {
    "bool": lambda m: m > 0,
    "labels": lambda m: m.astype(np.int32),
    "large numbers": lambda m: m.astype(np.int64) * 10**9,
    "probabilities": lambda m: (m > 0) * 0.98 + 0.01,
    "logits": lambda m: np.where(m > 0, 7.5, -9.0).astype(np.float32),
    "floating-point labels": lambda m: m.astype(np.float64),
    "0 to 255 floats": lambda m: (m > 0) * 255.0,
    "one channel": lambda m: (m > 0)[..., None],
    "one object each": lambda m: np.stack((m == 1, m == 3)),
    "SAM": lambda m: np.stack((m == 1, m == 3))[:, None],
}


@pytest.mark.parametrize("way", ARRAYS)
def test_arrays(tmp_path, way):
    (tmp_path / "masks").mkdir()
    for i, mask in enumerate(truth()):
        np.save(tmp_path / "masks" / f"mask_{i:05d}.npy", ARRAYS[way](mask))
    _, known = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=tmp_path / "masks"))
    assert known.dynamic_mask is not None
    torch.testing.assert_close(known.dynamic_mask, torch.from_numpy(truth() > 0).float(), atol=0.02, rtol=0)


def test_stacks_and_single_files(tmp_path):
    shots = write_images(tmp_path / "shots", N)
    moving = torch.from_numpy(truth() > 0).float()
    np.save(tmp_path / "all.npy", truth())
    np.savez_compressed(tmp_path / "all.npz", masks=truth() > 0, names=np.arange(3))
    pages = [Image.fromarray((mask > 0).astype(np.uint8) * 255) for mask in truth()]
    pages[0].save(tmp_path / "all.tif", save_all=True, append_images=pages[1:])
    for name in ("all.npy", "all.npz", "all.tif"):
        _, known = read_inputs(shots, PredictionOptions(masks=tmp_path / name))
        torch.testing.assert_close(known.dynamic_mask, moving)
    _, known = read_inputs(shots, PredictionOptions(masks=tmp_path / "all.npy", video=VideoConfig(every=2)))
    torch.testing.assert_close(known.dynamic_mask, moving[::2])
    np.save(tmp_path / "all.npy", truth()[:4])
    with pytest.raises(MatchError, match="4 masks without names, and there are 6 frames"):
        read_inputs(shots, PredictionOptions(masks=tmp_path / "all.npy"))


@pytest.mark.parametrize("in_folder", [False, True])
def test_one_mask_for_all_frames(tmp_path, capsys, in_folder):
    save(tmp_path / "m", [(truth()[5] > 0).astype(np.uint8) * 255])
    (tmp_path / "m" / "00000.png").rename(tmp_path / "m" / "dashboard.png")
    place = tmp_path / "m" if in_folder else tmp_path / "m" / "dashboard.png"
    _, known = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=place))
    assert known.dynamic_mask is not None
    assert all(torch.equal(mask, torch.from_numpy(truth()[5] > 0).float()) for mask in known.dynamic_mask)
    assert "is taken for all frames" in capsys.readouterr().out


def write_clip(path: Path, frames: np.ndarray, fps: int = 10, crf: int = 10) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def moving_square(n: int) -> np.ndarray:
    frames = np.zeros((n, *SIZE, 3), np.uint8)
    for i in range(n):
        frames[i, 8:40, 2 * i : 2 * i + 20] = 255
    return frames


def test_a_mask_video(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", np.stack([photo(i) for i in range(12)]))
    masks = write_clip(tmp_path / "masks.mp4", moving_square(12))
    for every in (1, 2):
        options = PredictionOptions(masks=masks, video=VideoConfig(every=every))
        _, known = read_inputs(clip, options)
        right = moving_square(12)[::every, ..., 0] > 0
        assert ((known.dynamic_mask.numpy() > 0.5) != right).mean() < 0.03
    twice = write_clip(tmp_path / "twice.mp4", moving_square(12).repeat(2, axis=0), fps=20)
    _, known = read_inputs(clip, PredictionOptions(masks=twice))
    assert ((known.dynamic_mask.numpy() > 0.5) != (moving_square(12)[..., 0] > 0)).mean() < 0.05
    shorter = write_clip(tmp_path / "short.mp4", moving_square(7))
    with pytest.raises(MatchError, match="belong to none"):
        read_inputs(clip, PredictionOptions(masks=shorter))


def test_masks_of_some_frames_only(tmp_path, capsys):
    masks = save(tmp_path / "masks", [(mask > 0).astype(np.uint8) * 255 for mask in truth()])
    for i in (1, 2, 4):
        (masks / f"{i:05d}.png").unlink()
    _, known = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=masks))
    assert known.mask_given.tolist() == [True, False, False, True, False, True]
    assert not known.all_masks_given
    torch.testing.assert_close(known.dynamic_mask[3], torch.from_numpy(truth()[3] > 0).float())
    assert "3 of 6 frames have one" in capsys.readouterr().out


def test_masks_of_a_scene_folder_belong_to_the_frames_that_it_was_made_of(tmp_path, capsys):
    """The folder numbers its own frames from 1, whichever they are of the clip, and white is static there."""
    scene = tmp_path / "scene"
    save(scene / "masks", [(mask == 0).astype(np.uint8) * 255 for mask in truth()[1::2]])
    for k in reversed(range(3)):
        (scene / "masks" / f"{k:05d}.png").rename(scene / "masks" / f"frame_{k + 1:05d}.png")
    (scene / "transforms.json").write_text("{}")
    right = torch.from_numpy(truth() > 0).float()
    clip = write_clip(tmp_path / "clip.mp4", np.stack([photo(i) for i in range(N)]))
    for data, names in ((write_images(tmp_path / "shots", N), "{:05d}.png"), (clip, "frame_{:05d}")):
        first = 1 if data == clip else 0
        named = [names.format(i + first) for i in range(1, N, 2)]
        (scene / "predictor.json").write_text(json.dumps({"names": named}))
        _, known = read_inputs(data, PredictionOptions(masks=scene / "masks"))
        assert known.mask_given.tolist() == [False, True] * 3
        torch.testing.assert_close(known.dynamic_mask[1::2], right[1::2])
    assert "belongs to a scene folder, where white is static" in capsys.readouterr().out


def test_the_number_of_an_object_that_comes_late_does_not_change_the_first_frames(tmp_path):
    """A frame with object 1 alone looks like a mask of 0 and 1; with object 3 beside it, like nearly black."""
    evidence = Evidence()
    for mask in truth():
        evidence.add(Layer(mask))
    decoded = [evidence.encoding("a").decode(Layer(mask)) for mask in truth()]
    assert all((d == (m > 0)).all() for d, m in zip(decoded, truth()))


def test_soft_masks_stay_soft():
    soft = np.round(np.clip(np.hypot(*np.mgrid[-24:24, -32:32] / 12.0), 0, 1) * 255).astype(np.uint8)
    evidence = Evidence()
    evidence.add(Layer(255 - soft))
    decoded = evidence.encoding("a").decode(Layer(255 - soft))
    np.testing.assert_allclose(decoded, 1 - soft / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["photograph", "grey photograph", "depth"])
def test_what_is_no_mask_is_refused(tmp_path, kind):
    image = photo(0)
    if kind == "grey photograph":
        image = cv2.GaussianBlur(image[..., 0], (0, 0), 2) // 2 + 60
    if kind == "depth":
        image = np.tile(np.linspace(40, 200, SIZE[1]).astype(np.uint8), (SIZE[0], 1))
    save(tmp_path / "masks", [image] * N)
    with pytest.raises(MaskError, match="photograph"):
        read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=tmp_path / "masks"))


def test_masks_that_are_probably_inverted_are_doubted(tmp_path, capsys):
    save(tmp_path / "masks", [(mask == 0).astype(np.uint8) * 255 for mask in truth()])
    shots = write_images(tmp_path / "shots", N)
    read_inputs(shots, PredictionOptions(masks=tmp_path / "masks"))
    assert "If they are inverted, give --masks-white-is-static" in capsys.readouterr().out
    _, known = read_inputs(shots, PredictionOptions(masks=tmp_path / "masks", masks_white_is_static=True))
    torch.testing.assert_close(known.dynamic_mask, torch.from_numpy(truth() > 0).float())
    assert "inverted" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: np.save(p, np.array([{}], object), allow_pickle=True), "cannot be read as an array"),
        (lambda p: np.save(p, np.full(SIZE, np.nan)), "not finite"),
        (lambda p: np.save(p, np.zeros(5)), r"shape \(5,\)"),
        (lambda p: np.save(p, np.array([["a"]])), "numbers or booleans|proportions"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "cannot be read as an array"),
        (lambda p: os.mkfifo(p), "a FIFO"),
        (lambda p: p.mkdir(), "a folder"),
    ],
)
def test_damaged_and_hostile_arrays(tmp_path, content, message):
    masks = tmp_path / "masks"
    masks.mkdir()
    content(masks / "00000.npy")
    with pytest.raises(MaskError, match=message):
        read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=masks))


def test_a_size_that_the_file_does_not_hold_takes_no_memory(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4800000, 6400000), }"
    header += b" " * (117 - len(header)) + b"\n"
    (masks / "00000.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(MaskError, match="cannot be read as an array"):
        read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=masks))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]), st.booleans())
@example(263, np.uint8, True)  # strips that overlapping objects leave of others: once taken for soft edges
@example(698, np.uint16, True)
def test_any_numbers_of_objects(seed, dtype, scaled):
    """Rectangles with any numbers, on background 0: everything but 0 moves, whatever the numbers are."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 60), dtype)
    for _ in range(rng.integers(1, 6)):
        y, x = rng.integers(0, 30), rng.integers(0, 45)
        labels[y : y + 8, x : x + 12] = rng.integers(1, np.iinfo(dtype).max if scaled else 9, endpoint=True)
    evidence = Evidence()
    evidence.add(Layer(labels))
    assert ((evidence.encoding("a").decode(Layer(labels)) > 0.5) == (labels > 0)).all()


def test_colours_of_16_bits_a_channel_are_the_same_masks(tmp_path):
    masks = truth()
    save(tmp_path / "grey", [Image.fromarray((m > 0).astype(np.uint8) * 255) for m in masks])
    (tmp_path / "deep").mkdir()
    for i, m in enumerate(masks):
        deep = np.repeat((m > 0).astype(np.uint16)[..., None] * 65535, 3, axis=2)
        cv2.imwrite(str(tmp_path / "deep" / f"{i:05d}.png"), deep)
    layer = read_layer(tmp_path / "deep" / "00000.png")
    assert layer.values.dtype == np.uint8
    np.testing.assert_array_equal(layer.values, np.repeat((masks[0] > 0)[..., None] * np.uint8(255), 3, axis=2))


def test_numbers_of_objects_in_channels_of_16_bits_are_something_that_moves(tmp_path):
    deep = np.zeros((*SIZE, 4), np.uint16)
    deep[8:24, 4:20, 1] = 300
    deep[..., 3] = 65535
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    layer = read_layer(tmp_path / "a.png")
    np.testing.assert_array_equal(layer.values, (deep[..., 1] > 0).astype(np.uint8))
    assert layer.alpha is not None
    assert (layer.alpha == 255).all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([[0, 255]]), np.uint8),
        (np.array([[0, 256]]), np.uint16),
        (np.array([[0, 1000]], np.int64), np.uint16),
        (np.array([[0, 65535]]), np.uint16),
        (np.array([[0.0, 1000.0]]), np.uint16),
        (np.array([[-1, 300]]), np.float32),
        (np.array([[0.25, 1.0]]), np.float32),
    ],
)
def test_numbers_of_an_array_keep_their_values(values: np.ndarray, kind: type):
    layer = layer_of_array(values, Path("masks.npy"))
    assert layer.values.dtype == kind
    np.testing.assert_array_equal(layer.values, values)


def test_numbers_beyond_16_bits_say_only_that_something_is_there():
    np.testing.assert_array_equal(layer_of_array(np.array([[0, 65536, 7]]), Path("masks.npy")).values, [[0, 1, 1]])
