"""Frames of a video or folder: which ones, which way up, how large; the truth is written into their colours."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from written_videos import STEP, frame_image, write_video

from das3r_ns.video import images
from das3r_ns.video.clip import choose_frames, digest, read_clip
from das3r_ns.video.config import VideoConfig

"""Grey levels between one frame and the next: more than a codec blurs."""


def numbers_of(frames: torch.Tensor) -> list[int]:
    left = frames[:, 8:-8, 4 : frames.shape[2] // 2 - 4].float().mean(dim=(1, 2, 3))
    return torch.round((left - 10) / STEP).int().tolist()


@pytest.fixture(scope="session")
def counting_video(tmp_path_factory) -> Path:
    """40 frames at 10 per second whose colours count."""
    return write_video(tmp_path_factory.mktemp("video") / "count.mp4", [frame_image(i) for i in range(40)])


def write_folder(folder: Path, count: int, suffix: str = ".png", size=(48, 64)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(frame_image(i, *size)).save(folder / f"shot{i}{suffix}")
    return folder


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (VideoConfig(), list(range(40))),
        (VideoConfig(every=7), [0, 7, 14, 21, 28, 35]),
        (VideoConfig(fps=5.0), list(range(0, 40, 2))),
        (VideoConfig(fps=1000.0), list(range(40))),
        (VideoConfig(fps=2.5), list(range(0, 40, 4))),
        (VideoConfig(start_s=3.5), [35, 36, 37, 38, 39]),
        (VideoConfig(start_s=1.0, end_s=1.5), [10, 11, 12, 13, 14]),
        (VideoConfig(end_s=99.0, every=20), [0, 20]),
        (VideoConfig(max_frames=3), [0, 20, 39]),
        (VideoConfig(start_s=2.0, fps=5.0, every=2, max_frames=3), [20, 28, 36]),
    ],
)
def test_the_frames_asked_for_are_the_frames_read(counting_video, config, expected):
    clip = read_clip(counting_video, config)
    assert numbers_of(clip.frames) == expected
    assert clip.names == tuple(f"frame_{i + 1:05d}" for i in expected)
    assert clip.fps == pytest.approx(10 * (len(expected) - 1) / (expected[-1] - expected[0]))
    assert clip.source == counting_video


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("b_frames.avi", "libx264"),
        ("a.gif", "gif"),
    ],
)
def test_every_kind_of_video_gives_its_frames_in_order(tmp_path, name, codec):
    path = write_video(
        tmp_path / name,
        [frame_image(i) for i in range(20)],
        codec=codec,
        **({"qmax": "2"} if codec == "mpeg4" else {}),
    )
    clip = read_clip(path)
    assert numbers_of(clip.frames) == list(range(20))
    assert clip.fps == pytest.approx(10)
    # Late in the video, where reading seeks if it can.
    assert numbers_of(read_clip(path, VideoConfig(start_s=1.5)).frames) == [15, 16, 17, 18, 19]


def test_seeking_lands_on_the_same_frames_as_reading_from_the_start(tmp_path):
    frames = [frame_image(i % 40) for i in range(120)]
    path = write_video(tmp_path / "long.mp4", frames, g="25")
    late = read_clip(path, VideoConfig(start_s=7.0, end_s=9.0, longest_side=None))
    assert numbers_of(late.frames) == [i % 40 for i in range(70, 90)]
    whole = read_clip(path, VideoConfig(max_frames=None))
    assert torch.equal(whole.frames[70:90], late.frames)


def test_a_video_of_variable_rate_is_chosen_by_time(tmp_path):
    # 10 frames a second for 1 s, then 40 a second for 0.5 s.
    times_ms = [100 * i for i in range(10)] + [1000 + 25 * i for i in range(20)]
    path = write_video(tmp_path / "v.mkv", [frame_image(i) for i in range(30)], times_ms=times_ms)
    assert numbers_of(read_clip(path, VideoConfig(fps=10.0)).frames) == [*range(10), 10, 14, 18, 22, 26]
    assert numbers_of(read_clip(path, VideoConfig(start_s=1.3)).frames) == list(range(22, 30))


def test_frames_in_quick_succession_are_told_apart(tmp_path):
    # A recorded screen: six frames within a tenth of a second, then nothing for a second.
    times_ms = [1000 * burst + 16 * i for burst in range(5) for i in range(6)]
    path = write_video(tmp_path / "bursts.mkv", [frame_image(i) for i in range(30)], times_ms=times_ms)
    assert numbers_of(read_clip(path).frames) == list(range(30))
    assert numbers_of(read_clip(path, VideoConfig(every=4)).frames) == list(range(0, 30, 4))


@pytest.mark.parametrize(("start_s", "end_s", "numbers"), [(0.0, 1.9, range(19)), (1.5, 4.0, range(15, 40))])
def test_a_video_trimmed_without_encoding_it_again_is_whole(tmp_path, counting_video, start_s, end_s, numbers):
    # As phones do it: every frame stays in the file, and an edit list says which part is shown.
    content = bytearray(counting_video.read_bytes())
    at = content.index(b"elst") + 12  # after version, flags and the number of entries: duration, first time, rate
    first = struct.unpack_from(">i", content, at + 4)[0]
    ticks_s = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    duration_ms = round(1000 * (end_s - start_s))  # FFmpeg writes the duration of the whole in milliseconds
    struct.pack_into(">Ii", content, at, duration_ms, first + round(start_s * ticks_s))
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(content)
    assert numbers_of(read_clip(path).frames) == list(numbers)


@pytest.mark.parametrize(
    "matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)]
)
def test_a_phone_video_is_turned_upright(tmp_path, matrix):
    # a, b, c, d of the display matrix, whole turns of 90 degrees and mirrors
    path = write_video(tmp_path / "phone.mp4", [frame_image(20)] * 4)
    a, b, c, d = matrix
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44  # the matrix in version 0 of the track header, ISO/IEC 14496-12
    content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    shown = read_clip(path).frames[0].numpy()

    # The definition: the pixel at (x, y) is shown at (a x + c y, b x + d y), moved back into the image.
    stored = frame_image(20)
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    columns, rows = a * x + c * y, b * x + d * y
    expected = np.zeros((np.ptp(rows) + 1, np.ptp(columns) + 1, 3), np.uint8)
    expected[rows - rows.min(), columns - columns.min()] = stored
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 4


def test_square_pixels_are_made_of_long_ones(tmp_path):
    path = write_video(tmp_path / "anamorphic.mkv", [frame_image(i) for i in range(4)], aspect="2")
    assert read_clip(path).size == (48, 128)


def test_large_frames_are_reduced_and_small_ones_left(counting_video):
    assert read_clip(counting_video, VideoConfig(longest_side=48, max_frames=4)).size == (36, 48)
    assert read_clip(counting_video, VideoConfig(longest_side=500, max_frames=4)).size == (48, 64)


def test_images_come_in_natural_order(tmp_path):
    folder = write_folder(tmp_path / "shots", 12)
    (folder / ".shot3.png").write_bytes(b"hidden")
    (folder / "notes.txt").write_text("not an image")
    clip = read_clip(folder)
    assert numbers_of(clip.frames) == list(range(12))
    assert clip.names[9:] == ("shot9.png", "shot10.png", "shot11.png")
    assert clip.fps == 30.0


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["img10.png", "img2.png", "img1.png"], ["img1.png", "img2.png", "img10.png"]),
        (["b1", "A2", "a10"], ["A2", "a10", "b1"]),
        (["x", "1", "02"], ["1", "02", "x"]),
        (["f1_2.jpg", "f1_10.jpg", "f1.jpg"], ["f1.jpg", "f1_2.jpg", "f1_10.jpg"]),
    ],
)
def test_natural_order(names, ordered):
    assert sorted(names, key=images.natural_key) == ordered


def test_times_of_a_folder_follow_its_stated_rate(tmp_path):
    folder = write_folder(tmp_path / "shots", 30)
    clip = read_clip(folder, VideoConfig(folder_fps=10.0, start_s=1.0, fps=5.0))
    assert numbers_of(clip.frames) == list(range(10, 30, 2))
    assert clip.fps == pytest.approx(5)


def test_exif_turns_images_and_gives_the_focal_length(tmp_path):
    for i in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6  # shown turned by 90 degrees clockwise
        exif.get_ifd(0x8769)[0xA405] = 26  # mm in 35 mm film
        Image.fromarray(frame_image(i)).save(tmp_path / f"{i}.jpg", exif=exif, quality=95)
    clip = read_clip(tmp_path)
    assert clip.size == (64, 48)
    upright = np.rot90(frame_image(0), k=-1)
    assert np.abs(clip.frames[0].numpy().astype(int) - upright).mean() < 3
    # The diagonal of 48 x 64 is 80 pixels and stands for 43.267 mm.
    assert clip.focal_px == pytest.approx(26 * 80 / 43.267, rel=1e-3)
    reduced = read_clip(tmp_path, VideoConfig(longest_side=48))
    assert reduced.focal_px == pytest.approx(0.75 * clip.focal_px)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_agree_about_what_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = frame_image(3)
    # EXIF 2.3, tag 274: where row 0 and column 0 of what is stored are to be seen.
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1), 7: np.rot90(stored, 2).swapaxes(0, 1), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {"compression": "tiff_lzw"})):
        Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
        assert images.image_size(tmp_path / name) == upright.shape[:2]
        np.testing.assert_array_equal(images.read_image(tmp_path / name), upright)


def test_what_stands_behind_the_pixels_of_a_png_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(frame_image(3)).save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    at = content.index(b"eXIf") - 4
    chunk = content[at : at + 12 + struct.unpack_from(">I", content, at)[0]]
    content = content.replace(chunk, b"")
    end = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:end] + chunk + content[end:])
    assert images.image_size(tmp_path / "a.png") == (48, 64)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), frame_image(3))


def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path):
    grey16 = (np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    expected = np.repeat((grey16 >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    assert np.abs(images.read_image(tmp_path / "grey16.png").astype(int) - expected).max() <= 1

    Image.fromarray(np.full((48, 64), 77, np.uint8)).save(tmp_path / "grey.png")
    assert (images.read_image(tmp_path / "grey.png") == 77).all()

    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:24] = (10, 20, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    read = images.read_image(tmp_path / "alpha.png")
    assert (read[:24] == (10, 20, 30)).all()
    assert (read[24:] == 255).all()

    Image.fromarray(np.full((48, 64), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="floating-point"):
        images.read_image(tmp_path / "float.tiff")


def test_the_digest_follows_content_and_options_only(tmp_path, counting_video):
    here = digest(counting_video, VideoConfig())
    assert digest(counting_video, VideoConfig()) == here
    copy = tmp_path / "renamed.mp4"
    copy.write_bytes(counting_video.read_bytes())
    assert digest(copy, VideoConfig()) == here
    assert digest(counting_video, VideoConfig(fps=5.0)) != here
    changed = bytearray(counting_video.read_bytes())
    changed[len(changed) // 2] ^= 1
    copy.write_bytes(changed)
    assert digest(copy, VideoConfig()) != here

    folder = write_folder(tmp_path / "shots", 4)
    before = digest(folder, VideoConfig())
    (folder / "readme.txt").write_text("no image")
    assert digest(folder, VideoConfig()) == before
    Image.fromarray(frame_image(7)).save(folder / "shot2.png")
    assert digest(folder, VideoConfig()) != before


def test_a_digest_decodes_nothing(counting_video, monkeypatch):
    monkeypatch.setattr(av, "open", lambda *_a, **_k: pytest.fail("opened the video"))
    digest(counting_video, VideoConfig())


def test_frames_past_the_last_choice_are_not_decoded(tmp_path, monkeypatch):
    from das3r_ns.video import decoding as container

    path = write_video(tmp_path / "a.mp4", [frame_image(i % 40) for i in range(200)], g="10")
    decoded = 0
    original = container._frames

    def counted(*args):
        nonlocal decoded
        for frame in original(*args):
            decoded += 1
            yield frame

    monkeypatch.setattr(container, "_frames", counted)
    read_clip(path, VideoConfig(start_s=10.0, end_s=11.0))
    assert decoded < 40


def test_choosing_keeps_order_and_never_repeats():
    times = tuple(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.1, 200)))
    for config in (VideoConfig(fps=7.0), VideoConfig(fps=13.0, every=3), VideoConfig(max_frames=17)):
        chosen = choose_frames(times, config)
        assert chosen == sorted(set(chosen))
    assert len(choose_frames(times, VideoConfig(max_frames=17))) == 17
