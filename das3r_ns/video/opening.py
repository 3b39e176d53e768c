"""Open exactly the named file as a video, and nothing else.

FFmpeg takes `concat:a.mp4|b.mp4`, `http://...` and the names of playlists for videos, and follows what playlists name:
other files, other machines. Here a name is always the name of one regular file, and kinds of files that name others
are refused before anything in them is looked at.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAME_PIXELS = 100_000_000
"""Frames may be as large as those of a camera of 12288x8192 pixels. What declares more is a damaged or hostile file:
one frame of it would take some gigabytes."""

_FORMATS_THAT_OPEN_MORE = frozenset(
    {"concat", "hls", "applehttp", "dash", "imf", "sdp", "rtp", "rtsp", "sap", "image2", "alias_pix", "brender_pix"}
    # Continued in files of neighbouring names, and descriptions of filters or devices.
    | {"mlv", "vobsub", "lavfi", "avisynth", "vapoursynth", "ffmetadata", "webm_dash_manifest"}
    | {"fbdev", "video4linux2,v4l2", "x11grab", "kmsgrab", "alsa", "oss", "pulse", "jack", "dv1394", "iec61883"}
    # Text: not a danger, but not a video either.
    | {"tty", "bin", "xbin", "adf", "idf"}
)

_BEGINNINGS = {
    b"#EXTM3U": "an HLS playlist",
    b"ffconcat": "a list of files for FFmpeg (concat)",
    b"<MPD": "a DASH manifest",
    b"<AssetMap": "an IMF description",
    b"<CompositionPlaylist": "an IMF description",
    b"v=0": "an SDP session description",
    b"[playlist]": "a playlist (pls)",
    b"<asx": "a playlist (asx)",
    b"<smil": "a SMIL description",
    b"[reference]": "a playlist (asx)",
    b"rtsp": "a list of addresses",
    b"http": "a list of addresses",
}
"""What the first words of files that name others say about their kind."""


def open_video(path: Path) -> InputContainer:
    """Open a video file for reading.

    Raises:
        ValueError: it is not a regular file, names other files, is not a video, or is damaged. The message says which.
    """
    check_regular(path)
    with path.open("rb") as file:
        beginning = file.read(4096)
    kind = _kind_of_list(beginning)
    if kind is not None:
        raise ValueError(
            f"{path} is not a video but {kind}, which names other files or addresses; those are never opened. Give the "
            "video file itself, or save what it names as one file."
        )
    options = {
        "format_whitelist": _formats(),
        "protocol_whitelist": "file",
        # Looking for what the header does not say decodes frames already.
        "max_pixels": str(MAX_FRAME_PIXELS),
    }
    try:
        # `file:` keeps colons in the name from being read as a protocol. Tags are free text in any encoding, for which
        # PyAV 19 has no option any more.
        tags: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        container = av.open(f"file:{path}", mode="r", options=options, **tags)
    except (av.error.FFmpegError, UnicodeError) as error:
        if _is_text(beginning):
            raise ValueError(f"{path} is not a video but text. Give a video file or a folder of images.") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{path} is not a video that can be read ({reason}): another kind of file, or cut short so that its index "
            "is missing. Give an mp4, mov, webm, avi, mkv or gif, or copy it again."
        ) from error
    return container


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that is the video: of several the largest; covers of music files and thumbnails do not count.

    Raises:
        ValueError: there is none, there is no decoder for it, or its frames are larger than `MAX_FRAME_PIXELS`.
    """

    def area(stream: VideoStream) -> int:
        return (stream.codec_context.width or 0) * (stream.codec_context.height or 0)

    found = [stream for stream in container.streams.video if not _is_cover(stream)]
    streams = [stream for stream in found if stream.codec_context is not None]
    if found and not streams:
        raise ValueError(f"{path} is coded in a way that this FFmpeg cannot decode. Convert it to H.264 in an mp4.")
    if not streams:
        kinds = sorted({"a cover image" if s.type == "video" else s.type for s in container.streams})
        kinds = " and ".join(kinds) or "nothing"
        raise ValueError(
            f"{path} holds no video (but {kinds}): another kind of file, or cut short. Give a video, or copy it again."
        )
    stream = max(streams, key=lambda stream: (area(stream), stream.frames != 1))  # an AVIF holds its first frame too
    context = stream.codec_context
    if area(stream) > MAX_FRAME_PIXELS:
        raise too_large(path, context.width, context.height)
    context.options = {**context.options, "max_pixels": str(MAX_FRAME_PIXELS)}  # its size may change on the way
    return stream


def too_large(path: Path, width: int, height: int) -> ValueError:
    """The error for frames above `MAX_FRAME_PIXELS`."""
    return ValueError(
        f"{path} declares frames of {width}x{height} pixels, and up to {MAX_FRAME_PIXELS // 10**6} million pixels a "
        "frame are read. It is damaged, or export it smaller."
    )


def check_regular(path: Path) -> None:
    """
    Raises:
        ValueError: not a regular file, or an empty one.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"{path} is not a regular file but {kind}. Save the video as a file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is not a video that can be read: it is empty (0 bytes). Copy it again.")


def _kind_of_list(content: bytes) -> str | None:
    """Which kind of list or description begins like that; None for everything else."""
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"<?xml", b"<!")):
        text = text[text.find(b">") + 1 :].lstrip()
        while text.startswith(b"<!--"):
            text = text[text.find(b"-->") + 3 :].lstrip()
    folded = text[:32].lower()
    for beginning, kind in _BEGINNINGS.items():
        if folded.startswith(beginning.lower()):
            return kind
    return None


def _is_text(content: bytes) -> bool:
    """Whether what a file begins with are words."""
    return b"\0" not in content and sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in content) > 0.9 * len(content)


def _formats() -> str:
    """FFmpeg's list of the kinds of files that may be opened."""
    return ",".join(sorted(av.formats_available - _FORMATS_THAT_OPEN_MORE))


def _is_cover(stream: VideoStream) -> bool:
    kinds = av.stream.Disposition
    return bool(stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails))
