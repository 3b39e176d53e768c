"""Kinds of video that people really have, each written here: what is read, and what is said about it."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_program import HEIGHT, WIDTH, encode, ffmpeg, moving_frames, psnr

from das3r_ns.video import VideoConfig, read_clip
from das3r_ns.video import memory as memory_of_frames

X264 = "-c:v libx264 -preset ultrafast -bf 2 -crf 6 -pix_fmt yuv420p"

X265 = "-c:v libx265 -preset ultrafast -crf 4 -x265-params log-level=none -pix_fmt yuv444p10le"

BT709_TO_P3 = np.array([[0.8225, 0.1774, 0.0000], [0.0332, 0.9669, 0.0000], [0.0171, 0.0724, 0.9108]])
"""From the primaries and the white (D65) of ITU-R BT.709 to those of SMPTE EG 432-1, worked out by their definition."""

BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""ITU-R BT.2087, table 2."""


def test_a_recording_that_starts_between_keyframes_gives_what_decodes(tmp_path, capsys):
    frames = moving_frames(40)
    whole = encode(tmp_path / "whole.ts", frames, f"{X264} -g 16 -sc_threshold 0")
    path = tmp_path / "cut.ts"
    ffmpeg(["-i", str(whole), "-c", "copy", "-bsf:v", "noise=drop=lt(n\\,7)", "-copyinkf", str(path)])
    clip = read_clip(path)
    assert len(clip) == 24  # from the second keyframe
    assert all(psnr(read, frame) > 30 for read, frame in zip(clip.frames.numpy(), frames[16:]))
    assert "starts between keyframes: its first 9 of 33 frames" in capsys.readouterr().out


def hdr_frames(transfer: str) -> tuple[np.ndarray, np.ndarray]:
    """8-bit SDR frames, and the same light (white at 203 cd/m2) in 16-bit R'G'B' of BT.2020."""
    sdr = moving_frames(6)
    nits = 203 * (sdr / 255.0) ** 2.4 @ BT709_TO_BT2020.T
    if transfer == "smpte2084":
        y = (nits / 10000) ** (2610 / 16384)
        code = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    elif transfer == "arib-std-b67":
        display = nits / 1000
        luminance = np.maximum(display @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
        scene = display * luminance ** (1 / 1.2 - 1)
        curved = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), curved)
    else:
        code = (nits / 203) ** (1 / 2.4)
    return sdr, np.round(code.clip(0, 1) * 65535).astype(np.uint16)


@pytest.mark.parametrize(
    ("transfer", "said"), [("smpte2084", "HDR (PQ)"), ("arib-std-b67", "HDR (HLG)"), ("bt709", "SDR, BT.2020")]
)
def test_wide_colours_become_those_of_the_screen(tmp_path, capsys, transfer, said):
    sdr, wide = hdr_frames(transfer)
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
    path = encode(tmp_path / "wide.mov", wide, f"-vf scale=out_color_matrix=bt2020nc:out_range=tv,{tags} {X265}")
    clip = read_clip(path)
    assert [psnr(read, frame) > 32.5 for read, frame in zip(clip.frames.numpy(), sdr)] == [True] * 6
    assert f"wide.mov is {said}" in capsys.readouterr().out


@pytest.mark.parametrize(("primaries", "transfer"), [("smpte432", "bt709"), ("smpte432", "iec61966-2-1")])
def test_the_wider_red_of_p3_becomes_that_of_the_screen(tmp_path, capsys, primaries, transfer):
    sdr = moving_frames(4)
    linear = (sdr / 255.0) ** 2.4 if transfer == "bt709" else srgb_to_linear(sdr / 255.0)
    wide = linear @ BT709_TO_P3.T
    code = wide ** (1 / 2.4) if transfer == "bt709" else linear_to_srgb(wide)
    wide = np.round(code.clip(0, 1) * 65535).astype(np.uint16)
    tags = f"setparams=color_primaries={primaries}:color_trc={transfer}:colorspace=bt709:range=tv"
    path = encode(tmp_path / "p3.mov", wide, f"-vf scale=out_color_matrix=bt709:out_range=tv,{tags} {X265}")
    read = read_clip(path).frames.numpy()
    untouched = (code.clip(0, 1) * 255).astype(np.uint8)
    assert min(psnr(a, b) for a, b in zip(read, sdr)) > 32.5
    assert max(psnr(a, b) for a, b in zip(untouched, sdr)) < 32.5  # what it would be without conversion
    assert "p3.mov is SDR, Display P3" in capsys.readouterr().out


def srgb_to_linear(code: np.ndarray) -> np.ndarray:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def test_highlights_keep_their_order_and_their_hue():
    from das3r_ns.video.colour import ColourSpace, to_bt709

    # PQ codes of 203, 400 and 1000 cd/m2 by SMPTE ST 2084: 0.5807, 0.6524, 0.7518
    codes = np.round(np.array([0.5807, 0.6524, 0.7518]) * 65535).astype(np.uint16)
    grey = np.repeat(codes[None, :, None], 3, axis=-1)
    shown = to_bt709(grey, ColourSpace(16, 9))[0].astype(int)
    assert (np.ptp(shown, axis=-1) <= 1).all()
    assert 240 < shown[0, 0] < shown[1, 0] < shown[2, 0] <= 255
    red = np.array([[[codes[2], codes[0], codes[0]]]])
    r, g, b = to_bt709(red, ColourSpace(16, 9))[0, 0].astype(int)
    assert r > g + 40
    assert abs(g - b) < 40


@pytest.mark.parametrize(
    ("order", "name", "codec"),
    [
        ("tff", "flagged.mpg", "-vf setfield=tff -c:v mpeg2video -q:v 2 -flags +ilme+ildct"),
        ("bff", "flagged.mkv", "-c:v libx264 -preset ultrafast -crf 6 -pix_fmt yuv420p -x264-params bff=1"),
        ("tff", "unflagged.mp4", "-c:v libx264 -preset ultrafast -crf 6 -pix_fmt yuv422p"),
        ("bff", "unflagged.mov", "-c:v prores_ks"),
    ],
)
def test_interlaced_frames_are_rebuilt(tmp_path, capsys, order, name, codec):
    moments = moving_frames(32)  # of fields
    first, second = moments[::2], moments[1::2]
    woven = first.copy()
    rows = slice(1, None, 2) if order == "tff" else slice(0, None, 2)
    woven[:, rows] = second[:, rows]
    clip = read_clip(encode(tmp_path / name, woven, codec))
    assert len(clip) == 16
    inner = clip.frames.numpy()[1:-1]
    better = np.array([psnr(a, b) for a, b in zip(inner, first[1:-1])])
    combed = np.array([psnr(a, b) for a, b in zip(woven[1:-1], first[1:-1])])
    assert (better > combed + 2).all(), (better, combed)
    assert f"interlaced ({'top' if order == 'tff' else 'bottom'} field first)" in capsys.readouterr().out


def test_progressive_frames_in_an_interlaced_stream_are_left_as_they_are(tmp_path, capsys):
    frames = moving_frames(16)
    path = encode(tmp_path / "psf.mkv", frames, f"{X264} -x264-params interlaced=1:tff=1")
    clip = read_clip(path)
    assert min(psnr(a, b) for a, b in zip(clip.frames.numpy(), frames)) > 30
    assert "interlaced" not in capsys.readouterr().out


def test_fields_are_told_from_blinds_and_steps():
    from das3r_ns.video.interlacing import vote_on_fields

    blinds = (np.arange(HEIGHT) % 2)[:, None] * 0.5 + 0.5  # the finest
    steps = (np.arange(HEIGHT) // 2 % 2)[:, None] * 0.5 + 0.5  # at rows that fall together with pairs of fields
    for stripes in (blinds, steps):
        first, second = ((frame[..., 0] * stripes).astype(np.uint8) for frame in moving_frames(2))
        assert not vote_on_fields(first, second)
        assert vote_on_fields(first, first) is None


def joined(folder: Path, *parts: tuple[tuple[int, int], int]) -> Path:
    """A transport stream whose parts ((height, width), number of frames) have sizes of their own."""
    content, start_s = b"", 0.0
    for k, ((height, width), count) in enumerate(parts):
        frames = moving_frames(count)
        scale = f"-vf scale={width}:{height} {X264} -output_ts_offset {start_s}"
        content += encode(folder / f"{k}.ts", frames, scale).read_bytes()
        start_s += (count + 3) / 25
    path = folder / "joined.ts"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", [".ts", ".mkv"])
def test_files_that_were_put_one_behind_the_other(tmp_path, capsys, ending):
    frames = moving_frames(60)
    parts = [encode(tmp_path / f"{k}{ending}", frames[30 * k : 30 * k + 30], X264) for k in range(2)]
    path = tmp_path / f"both{ending}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = read_clip(path)
    assert len(clip) == 60
    assert min(psnr(read, frame) for read, frame in zip(clip.frames.numpy(), frames)) > 30
    np.testing.assert_allclose(np.diff(clip.times_s), 0.04, atol=2e-3)
    assert "The times of both" in capsys.readouterr().out


def test_frames_whose_size_changes_are_read_at_the_size_of_most(tmp_path, capsys):
    clip = read_clip(joined(tmp_path, ((48, 64), 6), ((96, 128), 14)))
    assert clip.size == (96, 128)
    assert len(clip) == 20
    assert "change their size: 6 of 20 are scaled to 128x96" in capsys.readouterr().out


def test_frames_of_another_shape_are_left_out(tmp_path, capsys):
    clip = read_clip(joined(tmp_path, ((96, 128), 5), ((128, 96), 14)))
    assert clip.size == (128, 96)
    assert len(clip) == 14
    assert "change their shape: 5 of 19 are not 96x128" in capsys.readouterr().out


def test_an_aspect_that_changes_on_the_way_is_another_shape(tmp_path, capsys):
    wide = encode(tmp_path / "w.ts", moving_frames(14), f"-vf setsar=2 {X264}")
    square = encode(tmp_path / "s.ts", moving_frames(5), f"-vf setsar=1 {X264} -output_ts_offset 0.7")
    path = tmp_path / "joined.ts"
    path.write_bytes(wide.read_bytes() + square.read_bytes())
    clip = read_clip(path)
    assert clip.size == (96, 256)
    assert len(clip) == 14
    assert "change their shape: 5 of 19" in capsys.readouterr().out


def test_frames_that_were_dropped_while_recording_leave_a_gap_in_the_times(tmp_path):
    frames = moving_frames(20)
    arguments = "-vf select='not(between(n,5,9))' -fps_mode passthrough -c:v mjpeg -q:v 2 -pix_fmt yuvj420p"
    clip = read_clip(encode(tmp_path / "gap.avi", frames, arguments))
    assert clip.times_s == pytest.approx([i / 25 for i in (*range(5), *range(10, 20))], abs=0.001)


@pytest.mark.parametrize("name", ["2026-05-01T10:20:30.mp4", "concat:v.mp4", "a%03d.mp4", "-i.mp4", "http:x.mp4"])
def test_a_name_is_the_name_of_a_file(tmp_path, monkeypatch, name):
    encode(tmp_path / "v.mp4", moving_frames(4), X264)
    encode(tmp_path / "w.mp4", moving_frames(8), X264)
    (tmp_path / "w.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_clip(Path(name))) == 8


def test_a_protocol_that_is_no_file_does_not_exist(tmp_path, monkeypatch):
    encode(tmp_path / "v.mp4", moving_frames(4), X264)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"concat:v\.mp4"):
        read_clip(Path("concat:v.mp4"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("ffconcat version 1.0\nfile v.mp4\n", "concat"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nv.mp4\n#EXT-X-ENDLIST\n", "HLS"),
        ("\ufeff#EXTM3U\n#EXTINF:5,\nv.mp4\n", "HLS"),
        ("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n", "SDP"),
        ('<?xml version="1.0"?><!-- x --><MPD type="static"><BaseURL>v.mp4</BaseURL></MPD>', "DASH"),
        ("[playlist]\nFile1=v.mp4\n", "pls"),
    ],
)
@pytest.mark.parametrize("ending", [".m3u8", ".mp4"])
def test_lists_of_other_files_are_refused(tmp_path, content, kind, ending):
    encode(tmp_path / "v.mp4", moving_frames(4), X264)
    path = tmp_path / f"list{ending}"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"is not a video but .*{kind}.*never opened"):
        read_clip(path)


def test_ffmpeg_is_told_as_well_that_nothing_else_is_opened(tmp_path, monkeypatch):
    from das3r_ns.video import opening

    encode(tmp_path / "v.mp4", moving_frames(4), X264)
    path = tmp_path / "list.ffconcat"
    path.write_text("ffconcat version 1.0\nfile v.mp4\n")
    monkeypatch.setattr(opening, "_kind_of_list", lambda _: None)
    with pytest.raises(ValueError, match="is not a video"):
        read_clip(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="not a regular file but a pipe"):
        read_clip(tmp_path / "v.mp4")


def gif_of(width: int, height: int, count: int) -> bytes:
    """A GIF of a few bytes that declares large frames."""
    header = b"GIF89a" + struct.pack("<HH", width, height) + bytes([0xF0, 0, 0]) + bytes(6)
    frame = b"\x21\xf9\x04\x04\x0a\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return header + count * frame + b";"


@pytest.mark.parametrize(("side", "count"), [(65535, 4), (12000, 4), (9000, 3000)])
def test_frames_that_cannot_be_in_so_few_bytes_are_refused_at_once(tmp_path, side, count):
    (tmp_path / "bomb.gif").write_bytes(gif_of(side, side, count))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"declares .*{side}x{side} pixels"):
        read_clip(tmp_path / "bomb.gif")
    assert time.perf_counter() - start < 5


def test_an_image_that_declares_too_much_is_refused(tmp_path):
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png)
    with pytest.raises(ValueError, match="declares more pixels than are read"):
        read_clip(tmp_path)


def test_frames_that_do_not_fit_the_memory_are_told_before_they_are_decoded(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mp4", moving_frames(20), X264)
    room = int(2 * 10 * WIDTH * HEIGHT * 3 / 0.95) + 100  # of ten frames and their copies
    monkeypatch.setattr(memory_of_frames, "available_bytes", lambda: room)
    with pytest.raises(
        ValueError, match=r"20 frames of 128x96 pixels .*--video.max-frames 10 .*--video.longest-side 90"
    ):
        read_clip(path)
    assert len(read_clip(path, VideoConfig(max_frames=10))) == 10
    assert len(read_clip(path, VideoConfig(longest_side=90))) == 20


def test_a_damaged_middle_leaves_out_what_is_damaged(tmp_path, capsys):
    frames = moving_frames(30)
    path = encode(tmp_path / "v.mkv", frames, "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p")
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xd8\xff", len(content) // 2)
    content[at : at + 600] = bytes(600)  # the tables of one frame
    path.write_bytes(content)
    clip = read_clip(path)
    assert len(clip) == 29
    numbers = [int(name[-5:]) - 1 for name in clip.names]
    assert all(psnr(read, frames[number]) > 30 for read, number in zip(clip.frames.numpy(), numbers))
    assert "1 of 30 frames of v.mkv cannot be decoded" in capsys.readouterr().out
