"""Names to frames: whatever the naming, the right pairs or an error, never a silent mismatch."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from das3r_ns.dataparser.file_names import bare_name
from das3r_ns.dataparser.matching import match_files
from das3r_ns.dataparser.matching_result import AmbiguousNumbers, ClipFrames, MatchError
from das3r_ns.video.image_folder import file_order


def folder(names, numbers=None) -> ClipFrames:
    return ClipFrames(tuple(range(len(names))) if numbers is None else tuple(numbers), len(names), tuple(names))


def video(total, numbers=None, fps=10.0) -> ClipFrames:
    numbers = tuple(range(total)) if numbers is None else tuple(numbers)
    return ClipFrames(numbers, total, times_s=tuple(i / fps for i in range(total)))


PREFIXES = ("", "frame_", "IMG_", "mask_", "shot-", "sam2_", "Ünïcode ", "a.b_", "cam1_")
ENDINGS = (".png", ".jpg", ".PNG", ".jpg.png", ".npy", ".tif", "_mask.png", ".mask.png", "")


@st.composite
def namings(draw):
    """A numbering of frames: prefix, padding, offset, step, ending."""
    return (
        draw(st.sampled_from(PREFIXES)),
        draw(st.integers(0, 6)),
        draw(st.integers(0, 120)),
        draw(st.sampled_from((1, 1, 1, 2, 5, 10))),
        draw(st.sampled_from(ENDINGS)),
    )


def named(naming, numbers) -> list[str]:
    prefix, padding, offset, step, ending = naming
    return [f"{prefix}{offset + step * i:0{padding}d}{ending}" for i in numbers]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_all_frames_however_they_are_named(data):
    """As many files as images, in one numbering each, in any order on disk."""
    total = data.draw(st.integers(2, 24))
    images = named(data.draw(namings()), range(total))
    files = named(data.draw(namings()), range(total))
    assume(len(set(images)) == len(set(files)) == total)
    images = [images[i] for i in file_order([bare_name(n) for n in images])]
    order = data.draw(st.permutations(range(total)))
    shuffled = [files[i] for i in order]
    try:
        rows = match_files(shuffled, folder(images)).rows
    except MatchError:
        return  # names of the other's frames, shifted: refused
    assert [shuffled[row] for row in rows] == files


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_selection_of_images_finds_its_files(data):
    """Files for all images, frames for some of them; and the other way round, with the same numbers on both sides."""
    total = data.draw(st.integers(3, 24))
    prefix, padding, offset, step, ending = data.draw(namings())
    images = named((prefix, padding, offset, step, ".jpg"), range(total))
    files = named((data.draw(st.sampled_from((prefix, "mask_"))), data.draw(st.integers(0, 6)), offset, step, ending),
                  range(total))  # fmt: skip
    assume(len(set(images)) == len(set(files)) == total)
    some = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=2)))
    try:
        rows = match_files(files, folder(images, some)).rows
        assert [files[row] for row in rows] == [files[i] for i in some]
    except MatchError:
        pass
    try:
        rows = match_files([files[i] for i in some], folder(images)).rows
    except MatchError:
        return
    assert [None if row is None else files[some[row]] for row in rows] == [
        files[i] if i in some else None for i in range(total)
    ]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_files_numbered_for_another_selection_of_a_video(data):
    """A tool numbered every k-th frame, or a part, from 0 or 1; another selection is read now."""
    total = data.draw(st.integers(4, 60))
    numbered = sorted(data.draw(st.sampled_from([
        range(0, total, 2), range(0, total, 3), range(total // 2), range(total // 3, total), range(total),
    ])))  # fmt: skip
    first = data.draw(st.sampled_from((0, 1)))
    prefix = data.draw(st.sampled_from(PREFIXES))
    files = [f"{prefix}{k + first:05d}.png" for k in range(len(numbered))]
    reading = data.draw(st.sampled_from([range(total), range(0, total, 2), range(total // 2), range(0, total, 4)]))
    assume(len(reading) >= 2 and len(files) >= 2)
    same_count = len(reading) == len(numbered) and list(reading) != numbered
    assume(not same_count)  # nobody can tell: it is said that they are matched in order
    try:
        rows = match_files(files, video(total, reading)).rows
    except MatchError:
        return
    of_frame = dict(zip(numbered, files))
    assert [None if row is None else files[row] for row in rows] == [of_frame.get(i) for i in reading]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_numbers_of_the_whole_video(data):
    """Any subset of a video's frames by number, from 0 or from 1, any selection read."""
    total = data.draw(st.integers(4, 60))
    first = data.draw(st.sampled_from((0, 1)))
    some = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=2)))
    reading = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=2)))
    prefix = data.draw(st.sampled_from(("frame_", "")) if first else st.just("x"))
    files = [f"{prefix}{i + first:05d}.png" for i in some]
    assume(not (len(some) == len(reading) and some != reading))
    try:
        rows = match_files(files, video(total, reading)).rows
    except MatchError:
        return
    assert [None if row is None else some[row] for row in rows] == [i if i in some else None for i in reading]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_times(data):
    """Files named after times, of a video and of a folder of time-stamped images."""
    total = data.draw(st.integers(3, 40))
    fps = data.draw(st.sampled_from((10.0, 24.0, 29.97, 60.0)))
    some = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=2)))
    jitter = data.draw(st.floats(-0.3, 0.3)) / fps
    frames = video(total, fps=fps)
    files = [f"{i / fps + jitter + 0.5:.6f}.png" for i in some]
    shown = ClipFrames(frames.numbers, total, times_s=tuple(t + 0.5 for t in frames.times_s or ()))
    rows = match_files(files, shown).rows
    assert [None if row is None else some[row] for row in rows] == [i if i in some else None for i in range(total)]
    images = [f"1305031102.{int(1000000 * i / 60):06d}.jpg" for i in range(total)]
    files = [f"1305031102.{int(1000000 * i / 60 + 900):06d}.png" for i in some]
    rows = match_files(files, folder(images)).rows
    assert [None if row is None else some[row] for row in rows] == [i if i in some else None for i in range(total)]


def test_names_of_colmap():
    files = [f"{i:05d}.png.png" for i in range(6)]
    assert match_files(files, folder([f"{i:05d}.png" for i in range(6)], [0, 2, 4])).rows == (0, 2, 4)


def test_every_second_frame_numbered_without_gaps_is_refused():
    with pytest.raises(AmbiguousNumbers, match=r"10 masks numbered without gaps .* 20 frames.*--numbering"):
        match_files([f"frame_{i + 1:05d}.png" for i in range(10)], video(20))
    assert match_files([f"{i + 1}.png" for i in range(10)], video(20, range(0, 20, 2))).rows == tuple(range(10))


def test_names_of_the_first_images_for_a_selection_of_the_same_count_are_refused():
    images = [f"{i:05d}.jpg" for i in range(20)]
    files = [f"{i:05d}.png" for i in range(10)]
    with pytest.raises(AmbiguousNumbers, match="by-name"):
        match_files(files, folder(images, range(0, 20, 2)))
    assert match_files(files, folder(images, range(0, 20, 2)), "in-order").rows == tuple(range(10))
    assert match_files(files, folder(images, range(0, 20, 2)), "by-name").rows == (0, 2, 4, 6, 8, *[None] * 5)
    assert match_files(files, folder(images)).rows == (*range(10), *[None] * 10)


def test_a_numbering_that_is_shifted_against_the_names_is_refused():
    images = [f"{i:05d}.jpg" for i in range(20)]
    with pytest.raises(
        MatchError, match=r"19 of 20 masks are named like images.*1 belong to none \(first: 00020.png\)"
    ):
        match_files([f"{i + 1:05d}.png" for i in range(20)], folder(images))


def test_numbers_of_a_video_from_0_or_from_1():
    with pytest.raises(MatchError, match="from 0 or from 1"):
        match_files(["a3.png", "a7.png"], video(20))
    assert match_files(["a3.png", "a7.png"], video(20), "from-0").rows[3] == 0
    assert match_files(["a3.png", "a7.png"], video(20), "from-1").rows[2] == 0
    assert match_files(["frame_00003.png", "frame_00007.png"], video(20)).rows[2] == 0  # as scene folders name them
    assert match_files(["a0.png", "a7.png"], video(20)).rows[7] == 1
    with pytest.raises(MatchError, match="belongs to no frame"):
        match_files(["a3.png", "a27.png"], video(20), "from-1")


def test_bare_names():
    assert bare_name(r"images\00003.JPG.png") == "00003"
    assert bare_name("t_0.25") == "t_0.25"
    assert bare_name("./a/b/c.tar.npy") == "c.tar"
