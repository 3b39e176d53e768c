"""Which files of a folder are frames, and in which order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from das3r_ns.video import image_folder
from das3r_ns.video.image_folder import file_order, list_images, natural_key, ordered


def save(path, mode="RGB"):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["img1", "img2", "IMG10"],
        ["frame_-10", "frame_-2", "frame_0", "frame_3"],  # signs
        ["-5", "-4", "-1"],
        ["a-1", "a-2", "a-10"],  # a hyphen between words is no sign
        ["x_-1", "x_-2", "x_-10"],  # nor if all have it
        ["0.125", "0.25", "0.5", "10.5"],  # decimals
        ["v1.1", "v1.9", "v1.10"],  # versions
        ["1305031102.1", "1305031102.175304", "1305031102.2113"],
        ["2026-05-01 9.15", "2026-05-01 10.20", "2026-05-11 8.00"],
        ["③", "④", "⑩"],  # digits of other kinds and scripts
        ["²", "３", "٤"],
        ["9" * 30, "1" + "0" * 30],  # beyond what floats hold
    ],
)
def test_order_by_numbers_of_every_kind(names):
    shuffled = names[::-1]
    assert [shuffled[i] for i in file_order(shuffled)] == names


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)), max_size=12), max_size=12))
def test_any_names_have_an_order(names):
    once = [names[i] for i in file_order(names)]
    assert sorted(once) == sorted(names)
    assert [once[i] for i in file_order(once)] == once
    sorted(names, key=natural_key)


def test_masks_and_maps_beside_the_images_are_left_out_and_said(tmp_path, capsys):
    for i in range(3):
        save(tmp_path / f"{i}.jpg")
        for name in (f"{i}_mask.png", f"{i}.depth.png", f"{i}.jpg.png", f"normal_{i}.png"):
            save(tmp_path / name, "L")
    assert [p.name for p in list_images(tmp_path)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "12 of 15 images are masks, maps or copies" in capsys.readouterr().out


def test_two_series_of_which_one_is_depth(tmp_path):
    for i in range(3):
        save(tmp_path / f"rgb_{i:03d}.png")
        save(tmp_path / f"depth_{i:03d}.png", "L")
    save(tmp_path / "depth_003.png", "L")  # one more than images
    assert [p.name for p in list_images(tmp_path)] == ["rgb_000.png", "rgb_001.png", "rgb_002.png"]


def test_two_images_of_one_name(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.jpg")
        save(tmp_path / f"{i}.png", "L")
    assert [p.name for p in list_images(tmp_path)] == ["0.jpg", "1.jpg", "2.jpg"]


def test_images_that_are_called_depth_and_have_no_others_beside_them_are_frames(tmp_path):
    for i in range(3):
        save(tmp_path / f"depth_{i}.png")
    assert len(list_images(tmp_path)) == 3


def test_heic_beside_jpeg_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "heif_available", lambda: False)
    for i in range(3):
        save(tmp_path / f"{i}.jpg")
    (tmp_path / "3.HEIC").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"1 images of kind .heic.*beside 3 that can.*das3r-ns\[heif\]"):
        list_images(tmp_path)
    (tmp_path / "3.HEIC").rename(tmp_path / "2.HEIC")  # a phone's HEIC and JPEG of the same image
    assert len(list_images(tmp_path)) == 3


def test_heic_is_read_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif")
    image_folder.heif_available()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / f"{i}.heic")
    save(tmp_path / "2.jpg")
    assert [p.name for p in list_images(tmp_path)] == ["0.heic", "1.heic", "2.jpg"]
    with Image.open(tmp_path / "0.heic") as image:
        assert image.size == (64, 64)


def test_ordered_by_stem_before_ending(tmp_path):
    paths = [tmp_path / name for name in ("1.5.png", "1.25.png", "1.png")]
    assert [p.name for p in ordered(paths)] == ["1.png", "1.25.png", "1.5.png"]
