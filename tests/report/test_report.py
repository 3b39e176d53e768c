"""The report of a scene: valid HTML that needs nothing else, what files say escaped, written whole or not at all."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import html5lib
import numpy as np
import pytest
import torch
from tiny_run import scene_from_truth

from das3r_ns.report.advice import advice_on_run, advice_on_scene
from das3r_ns.report.charts import HEIGHT, WIDTH, curve, plans
from das3r_ns.report.command import report
from das3r_ns.report.images import coloured_depth, inverse_depth_range, with_mask
from das3r_ns.report.video import encode_video
from das3r_ns.scene import SceneFolderError, read_scene
from das3r_ns.scene.trust import colour_of_trust

HOSTILE = "</title><script>alert('\"1&amp;')</script>.mp4"


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A scene folder whose files say what somebody might wish them to."""
    folder = scene_from_truth(tmp_path_factory.mktemp("scene") / "walk")
    said = json.loads((folder / "predictor.json").read_text())
    said |= {
        "input": f"clips/{HOSTILE}",
        "predictor": "<img src=x>",
        "seconds": {"<b>Flow</b> & depth": 1.25, "total": 3},
        "quality": {
            "clip": {"motion_model": "general", "doubts": ["<i>other points</i>"], "reprojection_error_px": 0.5},
            "frames": {"trust": [1.0, 0.2, *[1.0] * 6], "reprojection_error_px": [0.5] * 8, "explained_share": None},
            "distrusted_frames": [1],
        },
    }
    (folder / "predictor.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def html(scene, tmp_path_factory) -> str:
    return report(scene, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "poster", "srcset", "data")]


def tags_of(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_it_is_valid_html(html):
    html5lib.HTMLParser(strict=True).parse(html)
    with pytest.raises(html5lib.html5parser.ParseError):  # the check can fail
        html5lib.HTMLParser(strict=True).parse(html.replace("</figure>", "", 1))


def test_nothing_is_loaded_from_elsewhere(html):
    tags = tags_of(html)
    assert tags.links
    assert all(link.startswith("data:") for link in tags.links)
    assert not {"script", "link", "iframe", "object"} & set(tags.names)
    assert "url(" not in html
    assert "@import" not in html


def test_what_files_say_is_escaped(html):
    assert "<script>" not in html
    assert "<img src=x>" not in html
    assert "<b>Flow</b>" not in html
    assert "&lt;i&gt;other points" in html
    assert "alert(" in html  # as text


def test_a_phone_gets_one_column(html):
    assert 'name="viewport" content="width=device-width' in html
    assert "min(100%, 240px)" in html


def test_video_masks_depth_curves_doubts_and_times_are_there(html):
    assert html.count("data:image/jpeg") == 12
    (encoded,) = re.findall(r"data:video/mp4;base64,([^\"]+)", html)
    with av.open(io.BytesIO(base64.b64decode(encoded))) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 8
    assert frames[0].shape == (48, 128, 3)
    assert "Frame 2 of less trust" in html
    assert "1.2 s" in html
    assert "Trust in the camera" in html
    assert "Explained of what was followed" not in html  # nothing is recorded of it


def test_a_second_report_replaces_the_first_and_a_failed_one_leaves_it(scene, tmp_path, monkeypatch):
    from das3r_ns.report import page

    path = report(scene, tmp_path / "report.html")
    before = path.read_bytes()

    def fails(*_):
        raise OSError("no")

    monkeypatch.setattr(page, "render_page", fails)
    with pytest.raises(OSError, match="no"):
        report(scene, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_it_lies_in_the_scene_unless_told_otherwise_and_changes_nothing_else(tmp_path):
    folder = scene_from_truth(tmp_path / "walk")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert report(folder) == folder / "report.html"
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "report.html"} == before


def test_what_is_neither_scene_nor_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Give a scene folder"):
        report(tmp_path / "nothing")
    with pytest.raises(ValueError, match="neither a scene folder"):
        report(tmp_path)
    (tmp_path / "video.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="neither a scene folder"):
        report(tmp_path / "video.mp4")


def test_a_damaged_scene_is_named(tmp_path):
    folder = scene_from_truth(tmp_path / "walk")
    (folder / "depth" / "frame_00003.npy").write_bytes(b"x")
    with pytest.raises(SceneFolderError, match="frame_00003"):
        report(folder)
    assert not (folder / "report.html").exists()


def test_doubts_come_with_what_to_do(scene):
    found = read_scene(scene)
    quality = {"quality": {"clip": {"motion_model": "rotation", "doubts": []}}}
    n = len(found)
    cases = {
        "only turns": replace(found, provenance=quality),
        "shot 2 of 3": replace(found, provenance={"shot": {"number": 2, "of": 3}}),
        "Nothing was found to move": replace(found, dynamic_prob=torch.zeros_like(found.dynamic_prob), provenance={}),
        "of all pixels move": replace(found, dynamic_prob=torch.ones_like(found.dynamic_prob), provenance={}),
        "Frame 3 without a camera": replace(found, pose_known=torch.arange(n) != 2, provenance={}),
        "static pixels only": replace(found, depth=torch.zeros_like(found.depth), provenance={}),
    }
    for words, case in cases.items():
        matching = [item for item in advice_on_scene(case) if words in item.what]
        assert len(matching) == 1, words
        assert matching[0].todo
    assert advice_on_scene(replace(found, provenance={})) == []


def test_doubts_about_a_run():
    assert advice_on_run(800, 800, 0.5, 0.5, False, 0.001) == []
    (stopped,) = advice_on_run(300, 800, 0.5, 0.5, False, None)
    assert "step 300 of 800" in stopped.what
    (moved,) = advice_on_run(800, 800, 0.8, 0.5, False, None)
    assert "0.80 instead of 0.50" in moved.what
    (kept,) = advice_on_run(800, 800, 0.8, 0.5, True, None)
    assert "are kept" in kept.what
    (unseen,) = advice_on_run(800, 800, 0.5, 0.5, False, 0.1)
    assert "10.0%" in unseen.what


def test_a_curve_runs_from_corner_to_corner_with_gaps_where_nothing_is_known():
    up = curve("t", "px", [0.0, 1.0, 2.0])
    assert up is not None
    assert up.path == f"M0.0 {HEIGHT}.0L{WIDTH / 2} {HEIGHT / 2}L{WIDTH}.0 0.0"
    gap = curve("t", "px", [1.0, None, float("nan"), 1.0], top=1.0, marks=[3])
    assert gap is not None
    assert gap.path == f"M0.0 0.0M{WIDTH}.0 0.0"
    assert gap.marks == (WIDTH,)
    assert curve("t", "px", [None, None]) is None


def test_plans_show_the_world_from_above_and_from_the_side(scene):
    found = read_scene(scene)
    T = torch.eye(4).repeat(8, 1, 1)
    T[:, 0, 3] = torch.arange(8.0)
    T[7, 2, 3] = 1.0  # the last one is higher
    flat = replace(found, T_world_camera=T, points=replace(found.points, xyz=found.points.xyz * 0))
    above, side = plans(flat, [str(colour_of_trust(1.0))] * 8)
    assert above.cameras[7].x - above.cameras[0].x == pytest.approx(0.9 * 360, abs=0.1)
    assert above.cameras[7].y == above.cameras[0].y
    assert side.cameras[7].y < side.cameras[0].y
    assert [camera.frame for camera in above.cameras] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_colours_of_depth_keep_unknown_black():
    depth = np.array([[[0.0, 1.0], [2.0, 4.0]]], dtype=np.float32)
    ends = inverse_depth_range(depth)
    assert ends[0] == pytest.approx(0.25, abs=0.03)
    assert ends[1] == pytest.approx(1.0, abs=0.03)
    image = coloured_depth(depth[0], ends, (2, 2))
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[0, 1, 0] > image[0, 1, 2]  # near is warm
    assert image[1, 1, 2] > 0.5 * image[1, 1, 0]
    assert inverse_depth_range(np.zeros((1, 2, 2), np.float32)) == (0.0, 1.0)


def test_a_mask_is_red_where_something_moves():
    image = np.full((4, 4, 3), 100, np.uint8)
    moving = np.zeros((4, 4), np.float32)
    moving[0, 0] = 1
    shown = with_mask(image, moving)
    assert shown[0, 0].tolist() == [174, 78, 72]
    assert shown[3, 3].tolist() == [100, 100, 100]


def test_a_video_of_noise_stays_within_its_bytes():
    generator = np.random.default_rng(0)
    images = (generator.integers(0, 256, (96, 256, 3), dtype=np.uint8) for _ in range(60))
    times_s = [i / 30 for i in range(60)]
    kind, content = encode_video(images, times_s, max_bytes=300_000)
    assert kind == "video/mp4"
    assert len(content) < 300_000


def test_a_video_keeps_uneven_times():
    images = [np.full((16, 32, 3), 40 * i, np.uint8) for i in range(4)]
    _, content = encode_video(iter(images), [0.0, 0.1, 0.5, 0.6])
    with av.open(io.BytesIO(content)) as video:
        times = [float(frame.time) for frame in video.decode(video=0)]
    assert times == pytest.approx([0.0, 0.1, 0.5, 0.6], abs=1e-3)
