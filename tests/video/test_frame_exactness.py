"""Frame by frame against a second decoder: the ffmpeg program, which is built apart from PyAV's libraries.

Each row writes a clip of 12 frames with that program, reads it here and there, and compares number, order, content and
times of the frames.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_program import HEIGHT, WIDTH, ffmpeg, moving_frames, psnr

from das3r_ns.video import VideoConfig, read_clip

FRAMES, FPS = 12, 25


@dataclass(frozen=True)
class Row:
    """A kind of file: its name, and how ffmpeg writes it."""

    name: str
    encode: str
    """Arguments between the input and the file."""
    before: str = ""
    """Arguments before the input."""
    times: bool = True
    """Whether the file stores times that can be compared."""
    min_psnr: float = 30.0
    """Decibels between the two decoders; they differ in how colour is brought to the size of brightness."""
    stream: int = 0
    tail: bytes = b""
    """Bytes written behind the end."""


X264 = "-c:v libx264 -preset ultrafast -bf 2 -crf 10 -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast -crf 10 -x265-params log-level=none:bframes=2"
ROWS = [
    Row("h264.mp4", X264),
    Row("negative_start.mp4", f"{X264} -movflags negative_cts_offsets"),
    Row("late_start.mp4", f"{X264} -output_ts_offset 5"),
    Row("fragmented.mp4", f"{X264} -g 4 -movflags frag_keyframe+empty_moov"),
    Row("no_edit_list.mp4", f"{X264} -use_editlist 0"),
    Row("open_gop.mp4", f"{X264} -g 5 -x264-params open-gop=1:scenecut=0"),
    Row("full_range.mp4", f"{X264} -vf scale=out_range=full -color_range pc"),
    Row(
        "bt709.mp4",
        f"{X264} -vf scale=out_color_matrix=bt709 -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    ),
    Row("rgb.mp4", "-c:v libx264rgb -preset ultrafast -crf 4"),
    Row("grey.mp4", "-c:v libx264 -preset ultrafast -crf 6 -pix_fmt gray"),
    Row("odd_size.mp4", "-vf crop=127:95:0:0 -c:v libx264 -preset ultrafast -crf 6 -pix_fmt yuv444p"),
    Row("422_10_bit.mov", "-c:v libx264 -preset ultrafast -bf 2 -crf 6 -pix_fmt yuv422p10le"),
    Row("variable_rate.mp4", f"{X264} -vf setpts='PTS+if(gte(N,6),1.5/TB,0)' -fps_mode passthrough"),
    Row("hevc.mov", f"{X265} -pix_fmt yuv420p -tag:v hvc1"),
    Row("444_12_bit.mkv", f"{X265} -pix_fmt yuv444p12le"),
    Row("av1.mkv", "-c:v libaom-av1 -cpu-used 8 -crf 12 -pix_fmt yuv420p"),
    Row("h264.mkv", X264),
    Row("no_duration.mkv", f"{X264} -live 1 -f matroska"),
    Row("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 8 -b:v 0 -pix_fmt yuv420p"),
    Row(
        "vp8_hidden_frames.webm",
        "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 8 -arnr-maxframes 5 -b:v 3M -pix_fmt yuv420p",
    ),
    Row("vp9.ivf", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 8 -b:v 0 -pix_fmt yuv420p"),
    Row("h264.avi", X264, times=False),
    Row("mpeg4.avi", "-c:v mpeg4 -bf 2 -q:v 2", times=False),
    Row("mjpeg.avi", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
    Row("uncompressed.avi", "-c:v rawvideo -pix_fmt bgr24"),
    Row("huffyuv.avi", "-c:v huffyuv -pix_fmt yuv422p"),
    Row("h264.wmv", X264, times=False),
    Row("wmv2.wmv", "-c:v wmv2 -q:v 2"),
    Row("msmpeg4.asf", "-c:v msmpeg4 -q:v 2"),
    Row("rv20.rm", "-c:v rv20 -q:v 2"),
    Row("h264.flv", X264),
    Row("sorenson.flv", "-c:v flv -q:v 2"),
    Row("h264.ts", X264),
    Row("mpeg2.ts", "-c:v mpeg2video -bf 2 -q:v 2"),
    Row("hevc.m2ts", f"{X265} -pix_fmt yuv420p"),
    Row("mpeg2.vob", "-c:v mpeg2video -bf 2 -q:v 2"),
    Row("mpeg1.mpg", "-c:v mpeg1video -bf 2 -q:v 2"),
    Row("h264.mpg", X264, times=False),
    Row("raw.h264", X264, times=False),
    Row("raw.hevc", f"{X265} -pix_fmt yuv420p", times=False),
    Row("raw.m2v", "-c:v mpeg2video -bf 2 -q:v 2", times=False),
    Row("raw.mjpeg", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p -f mjpeg"),
    Row("theora.ogv", "-c:v libtheora -q:v 10"),
    Row("ffv1.nut", "-c:v ffv1"),
    Row("mpeg2.mxf", "-c:v mpeg2video -q:v 2 -bf 2 -pix_fmt yuv422p"),
    Row("prores.mov", "-c:v prores_ks -profile:v 3"),
    Row("animation.mov", "-c:v qtrle"),
    Row("h263.3gp", "-s 176x144 -c:v h263 -q:v 2"),
    Row("animation.gif", "-filter_complex split[a][b];[a]palettegen[p];[b][p]paletteuse"),
    Row("animation.apng", "-c:v apng -f apng -plays 0"),
    Row("uncompressed.y4m", "-pix_fmt yuv420p"),
    Row("vvc.mp4", "-c:v libvvenc -preset faster -qp 16 -pix_fmt yuv420p10le"),
    Row("anamorphic.mkv", f"{X264} -vf setsar=16/9"),
    Row("with_sound.mp4", f"{X264} -c:a aac -shortest", before="-f lavfi -i sine=d=1"),
    Row(
        "two_videos.mkv",
        f"-map 1 -map 1 -filter:v:0 scale=64:48 {X264} -disposition:v:1 0",
        before="-f lavfi -i sine=d=1",
        stream=1,
    ),
    Row("trailing_bytes.mp4", X264, tail=bytes(3000)),
    Row("trailing_bytes.avi", "-c:v mpeg4 -q:v 2", tail=b"edited by a program" * 50),
    Row("trailing_bytes.gif", "-filter_complex split[a][b];[a]palettegen[p];[b][p]paletteuse", tail=bytes(40)),
]


@pytest.fixture(scope="module")
def source() -> bytes:
    return moving_frames(FRAMES).tobytes()


def write(row: Row, source: bytes, folder: Path) -> Path:
    path = folder / row.name
    raw = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r {FPS} -i pipe:0"
    ffmpeg([*row.before.split(), *raw.split(), *row.encode.split(), str(path)], source)
    if row.tail:
        path.write_bytes(path.read_bytes() + row.tail)
    return path


def second_decoder(path: Path, size: tuple[int, int], stream: int) -> tuple[np.ndarray, list[float]]:
    """Frames at height and width `size`, and the times at which they are shown."""
    height, width = size
    filters = f"showinfo=checksum=0,scale={width}:{height}"
    output = f"-map 0:v:{stream} -fps_mode passthrough -vf {filters} -f rawvideo -pix_fmt rgb24 pipe:1"
    done = ffmpeg(["-i", str(path), *output.split()])
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    times = [float(time) for time in re.findall(r"n: *\d+ pts: *\S+ +pts_time:(\S+)", done.stderr.decode())]
    return frames, times


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_frames_are_those_of_the_second_decoder(row, source, tmp_path):
    path = write(row, source, tmp_path)
    clip = read_clip(path, VideoConfig(max_frames=None))
    expected, times = second_decoder(path, clip.size, row.stream)
    assert len(expected) == FRAMES
    assert len(clip) == FRAMES
    read = clip.frames.numpy()
    for i in range(FRAMES):
        assert psnr(read[i], expected[i]) > row.min_psnr, f"frame {i}: {psnr(read[i], expected[i]):.1f} dB"
        likeness = [psnr(read[i], other) for other in expected]
        assert int(np.argmax(likeness)) == i
    assert clip.times_s is not None
    if row.times:
        np.testing.assert_allclose(clip.times_s, np.array(times) - times[0], atol=0.5 / FPS)
