"""Images and animations of unusual kinds: EXIF data, transparency, more than 8 bits."""

from pathlib import Path

import numpy as np
import pytest
from ffmpeg_program import HEIGHT, WIDTH, encode, ffmpeg, moving_frames, psnr
from PIL import Image

from das3r_ns.video import VideoConfig, read_clip


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    return exif


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_frames_with_exif_data_are_read_upright(tmp_path, orientation):
    frames = moving_frames(8)
    stored = b""
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.jpg", exif=exif_of(orientation), quality=95)
        stored += (tmp_path / f"{i}.jpg").read_bytes()
    path = tmp_path / "camera.avi"
    ffmpeg(["-f", "mjpeg", "-framerate", "15", "-i", "pipe:0", "-c", "copy", str(path)], stored)
    clip = read_clip(path)
    turns = {1: 0, 6: -1, 3: 2}[orientation]
    for read, frame in zip(clip.frames.numpy(), frames, strict=True):
        assert psnr(read, np.rot90(frame, turns)) > 30


def test_animated_png_with_exif_data(tmp_path):
    frames = moving_frames(6)
    images = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "a.png"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, exif=exif_of(1))
    assert b"eXIf" in path.read_bytes()
    np.testing.assert_array_equal(read_clip(path).frames.numpy(), frames)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.avi", "clip.mkv"])
def test_tags_in_any_encoding_do_not_matter(tmp_path, name):
    whole = encode(tmp_path / "whole.mkv", moving_frames(8), "-c:v mpeg4 -q:v 2")
    title = b"title=V\xe9randa \xc4\xe3\xba\xc3"
    ffmpeg(["-i", str(whole), "-c", "copy", "-metadata", title, str(tmp_path / name)])
    assert len(read_clip(tmp_path / name)) == 8


def rgba_frames() -> np.ndarray:
    """Frames whose left quarter is transparent."""
    frames = moving_frames(6)
    opaque = np.full(frames.shape[:3], 255, np.uint8)
    opaque[:, :, : WIDTH // 4] = 0
    return np.concatenate([frames, opaque[..., None]], axis=-1)


def write_transparent(path: Path, frames: np.ndarray) -> Path:
    images = [Image.fromarray(frame) for frame in frames]
    if path.suffix in (".webp", ".png"):
        options = {"lossless": True} if path.suffix == ".webp" else {"disposal": 1}
        images[0].save(path, save_all=True, append_images=images[1:], duration=40, **options)
        return path
    codec = {
        ".webm": "-c:v libvpx-vp9 -deadline realtime -crf 4 -b:v 0 -pix_fmt yuva420p",
        ".mov": "-c:v qtrle -pix_fmt argb",
        ".mkv": "-c:v ffv1 -pix_fmt yuva444p",
        ".gif": "-filter_complex split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse",
    }[path.suffix]
    raw = f"-f rawvideo -pix_fmt rgba -s {WIDTH}x{HEIGHT} -r 25 -i pipe:0"
    ffmpeg([*raw.split(), *codec.split(), str(path)], frames.tobytes())
    return path


@pytest.mark.parametrize("ending", [".webm", ".mov", ".mkv", ".gif", ".png", ".webp"])
def test_one_rule_for_transparency(tmp_path, capsys, ending):
    frames = rgba_frames()
    path = write_transparent(tmp_path / f"a{ending}", frames)
    edge = WIDTH // 4
    shown = read_clip(path)
    assert (shown.frames[:, :, : edge - 2] > 250).all()
    assert min(psnr(a, b) for a, b in zip(shown.frames.numpy()[:, :, edge + 2 :], frames[:, :, edge + 2 :, :3])) > 26
    assert shown.alpha is None
    assert f"25% of a{ending} is transparent: laid over white" in capsys.readouterr().out

    masked = read_clip(path, VideoConfig(alpha="transparent-moves"))
    assert masked.alpha is not None
    assert (masked.alpha[:, :, : edge - 2] < 5).all()
    assert (masked.alpha[:, :, edge + 2 :] > 250).all()
    if ending not in (".gif", ".webp"):  # whose writers keep no colours below what is transparent
        hidden = masked.frames.numpy()[:, :, : edge - 2]
        assert min(psnr(a, b) for a, b in zip(hidden, frames[:, :, : edge - 2, :3])) > 24


def test_transparent_parts_of_images_are_laid_over_white_and_said(tmp_path, capsys):
    for i, frame in enumerate(rgba_frames()):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    assert (read_clip(tmp_path).frames[:, :, : WIDTH // 4] == 255).all()
    assert f"25% of {tmp_path.name} is transparent: laid over white" in capsys.readouterr().out
    for i, frame in enumerate(rgba_frames()):  # an alpha channel that is opaque everywhere is not worth a word
        frame[..., 3] = 255
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    read_clip(tmp_path)
    assert "transparent" not in capsys.readouterr().out


@pytest.mark.parametrize(("alpha", "left"), [("transparent-moves", 1.0), ("opaque-moves", 0.0)])
def test_transparency_becomes_the_mask_of_what_moves(tmp_path, alpha, left):
    from das3r_ns.dataparser.inputs import read_inputs
    from das3r_ns.dataparser.options import PredictionOptions

    video = write_transparent(tmp_path / "a.mov", rgba_frames())
    folder = tmp_path / "images"
    folder.mkdir()
    for i, frame in enumerate(rgba_frames()):
        Image.fromarray(frame).save(folder / f"{i}.png")
    for data in (video, folder):
        _, known = read_inputs(data, PredictionOptions(video=VideoConfig(alpha=alpha)))
        assert known.dynamic_mask is not None
        assert float(known.dynamic_mask[:, :, :28].mean()) == pytest.approx(left, abs=0.02)
        assert float(known.dynamic_mask[:, :, 36:].mean()) == pytest.approx(1 - left, abs=0.02)


def test_an_animated_webp_has_its_times(tmp_path):
    frames = moving_frames(5)
    images = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "a.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 80, 200, 40, 40], lossless=True)
    clip = read_clip(path)
    np.testing.assert_array_equal(clip.frames.numpy(), frames)
    assert clip.times_s == pytest.approx([0, 0.04, 0.12, 0.32, 0.36])


@pytest.mark.parametrize(("bits", "colour"), [(10, False), (12, False), (14, False), (12, True)])
def test_values_of_few_bits_in_16_bit_images_use_the_full_range(tmp_path, capsys, bits, colour):
    import cv2

    frames = moving_frames(4)
    for i, frame in enumerate(frames):
        values = np.round((frame if colour else frame[..., 0]) * (((1 << bits) - 1) / 255)).astype(np.uint16)
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), values[..., ::-1] if colour else values)
    clip = read_clip(tmp_path)
    expected = frames if colour else np.repeat(frames[..., :1], 3, axis=-1)
    assert np.abs(clip.frames.numpy().astype(int) - expected).max() <= 1
    assert f"{(1 << bits) - 1} is taken for white" in capsys.readouterr().out


def test_values_of_16_bits_stay_as_they_are(tmp_path, capsys):
    frames = moving_frames(3)[..., 0]
    for i, frame in enumerate(frames):
        Image.fromarray(frame.astype(np.uint16) * 257).save(tmp_path / f"{i}.png")
    assert np.abs(read_clip(tmp_path).frames[..., 0].numpy().astype(int) - frames).max() <= 1
    assert "taken for white" not in capsys.readouterr().out
