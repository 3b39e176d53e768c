"""What a user does wrong is told before the long work: what was found, what was expected, what to do."""

from pathlib import Path

import numpy as np
import pytest
from fakes import FakePredictor, texture, write_images
from PIL import Image
from written_videos import frame_image, write_video

from das3r_ns.dataparser import cache
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.predict import predict
from das3r_ns.predictor import registry
from das3r_ns.video.clip import read_clip
from das3r_ns.video.config import VideoConfig


@pytest.fixture(autouse=True)
def predictor(monkeypatch):
    """Whatever is wrong is found before a predictor is called."""
    fake = FakePredictor()
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (fake, "a test"))
    yield fake
    assert fake.calls == 0


def noise_video(path: Path, n: int = 30, codec: str = "libx264", **options) -> Path:
    """A video large enough that cutting it takes frames and not only the header."""
    rng = np.random.default_rng(0)
    frames = [np.kron(rng.integers(0, 255, (24, 32, 3), np.uint8), np.ones((5, 5, 1), np.uint8)) for _ in range(n)]
    return write_video(path, frames, codec=codec, **options)


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holiday.mp4 does not exist. Give a video"):
        predict(tmp_path / "holiday.mp4", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_clip(tmp_path / "holiday.mp4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"just some words\n" * 100, "not a video but text"),
        ("a.txt", b"just some words\n" * 100, "not a video but text"),
        ("a.mp4", b"", "not a video that can be read"),
        ("a.mp4", bytes(1000), "not a video that can be read"),
    ],
)
def test_a_file_that_is_no_video(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        predict(tmp_path / name, tmp_path / "out")


def test_a_single_image(tmp_path):
    Image.fromarray(texture(1, (48, 64))[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"single image.*folder of images"):
        read_clip(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.avi", "mpeg4", {}),
        ("a.gif", "gif", {}),
    ],
)
def test_a_video_cut_short_says_how_much_can_be_read_and_that_much_can(tmp_path, name, codec, container):
    path = cut(noise_video(tmp_path / name, codec=codec, container=container), 0.6)
    with pytest.raises(ValueError, match=r"is cut short: \d+.* frames can be read .*Copy it again, or use") as refused:
        predict(path, tmp_path / "out")
    remedy = float(str(refused.value).split("--video.end-s ")[1].rstrip("."))
    assert 0.5 < remedy < 2.9
    clip = read_clip(path, VideoConfig(end_s=remedy))
    assert len(clip) == pytest.approx(10 * remedy, abs=1)


def test_an_mp4_without_its_index(tmp_path):
    path = cut(noise_video(tmp_path / "a.mp4"), 0.6)  # the index comes last in an ordinary mp4
    with pytest.raises(ValueError, match="cut short so that its index is missing"):
        read_clip(path)


def test_a_whole_video_is_not_called_cut(tmp_path):
    for name, codec in [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.gif", "gif")]:
        assert len(read_clip(noise_video(tmp_path / name, 12, codec=codec))) == 12


def test_too_few_frames(tmp_path):
    one = write_video(tmp_path / "one.mp4", [frame_image(0)])
    with pytest.raises(ValueError, match=r"gives 1 frame, but camera motion needs at least 2: give a longer clip"):
        predict(one, tmp_path / "out")
    video = write_video(tmp_path / "v.mp4", [frame_image(i) for i in range(10)])
    with pytest.raises(ValueError, match=r"lasts 0.90 s at 10 frames per second and gives 1 .*--video.fps 0.5"):
        predict(video, tmp_path / "out", PredictionOptions(video=VideoConfig(fps=0.5)))
    with pytest.raises(ValueError, match=r"gives 0 frames.*--video.start-s 5"):
        read_clip(video, VideoConfig(start_s=5.0))
    with pytest.raises(ValueError, match=r"gives 1 frame,.*--video.every 100"):
        read_clip(write_images(tmp_path / "shots"), VideoConfig(every=100))


def test_tiny_frames(tmp_path):
    with pytest.raises(ValueError, match=r"frames of 8x8 pixels, and at least 32"):
        predict(write_images(tmp_path / "shots", size=(8, 8)), tmp_path / "out")


@pytest.mark.parametrize(("level", "kind"), [(0, "black"), (128, "of one even colour")])
def test_frames_with_nothing_in_them(tmp_path, level, kind):
    video = write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), level, np.uint8)] * 5)
    with pytest.raises(ValueError, match=f"all 5 frames of .* are {kind}: there is nothing to reconstruct"):
        predict(video, tmp_path / "out")


def test_a_folder_without_images(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"holds no images .*but nothing"):
        predict(empty, tmp_path / "out")
    (empty / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"but 1 other files \(first: notes.txt\)"):
        predict(empty, tmp_path / "out")
    (empty / "IMG_1.CR2").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"1 images of kind .cr2.*Convert them"):
        predict(empty, tmp_path / "out")
    write_images(tmp_path / "dog" / "images")
    with pytest.raises(ValueError, match=r"dog holds no images itself, but .*images does"):
        predict(tmp_path / "dog", tmp_path / "out")


def test_mixed_sizes_name_two_images(tmp_path):
    shots = write_images(tmp_path / "shots")
    Image.fromarray(texture(1, (64, 48))[0]).save(shots / "00004.png")
    with pytest.raises(ValueError, match=r"00000.png has 64x48 pixels, 00004.png 48x64"):
        predict(shots, tmp_path / "out")


def test_a_image_that_is_cut_short(tmp_path):
    shots = write_images(tmp_path / "shots", size=(200, 200))
    cut(shots / "00002.png", 0.5)
    with pytest.raises(ValueError, match=r"00002.png cannot be read to its end"):
        predict(shots, tmp_path / "out")
    (shots / "00002.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"00002.png is not an image"):
        predict(shots, tmp_path / "out")


def test_a_mask_that_is_cut_short(tmp_path):
    masks = write_images(tmp_path / "masks", size=(200, 200))
    cut(masks / "00002.png", 0.5)
    options = PredictionOptions(masks=masks)
    with pytest.raises(ValueError, match=r"00002.png cannot be read to its end"):
        predict(write_images(tmp_path / "shots", size=(200, 200)), tmp_path / "out", options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VideoConfig(fps=0.0), "--video.fps must be above 0, got 0.0"),
        (VideoConfig(every=0), "--video.every must be 1 or more"),
        (VideoConfig(start_s=-1.0), "--video.start-s must not be negative"),
        (VideoConfig(start_s=2.0, end_s=1.0), r"--video.end-s \(1.0\) must be after"),
        (VideoConfig(max_frames=1), "--video.max-frames must be 2 or more"),
        (VideoConfig(longest_side=8), "--video.longest-side must be 32 or more"),
        (VideoConfig(folder_fps=0.0), "--video.folder-fps must be above 0"),
    ],
)
def test_options_without_sense(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        predict(write_images(tmp_path / "shots"), tmp_path / "out", PredictionOptions(video=config))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("map_longest_side", 0, "map-longest-side must be 1 or more, got 0"),
        ("offsets", (), "offsets must be distances of 1"),
        ("offsets", (0, 2), "offsets must be distances of 1"),
        ("masks.median_px", 4, "masks.median-px must be 1, 3 or 5, got 4"),
        ("masks.median_px", 7, "masks.median-px must be 1, 3 or 5"),
        ("masks.softness", 0.0, "masks.softness must be above 0"),
        ("masks.contrast", 0.0, "masks.contrast must be above 0"),
        ("masks.memory", 1.5, "masks.memory must be between 0 and 1"),
        ("masks.appearance", -0.1, "masks.appearance must be between 0 and 1"),
        ("mapping.field_of_view", 0.0, "mapping.field-of-view must be between"),
        ("mapping.features.overlap", 0, "mapping.features.overlap must be 1 or more"),
    ],
)
def test_settings_of_the_predictor_are_looked_at_before_the_frames(tmp_path, monkeypatch, option, value, message):
    monkeypatch.setattr(cache, "build_predictor", registry.build_predictor)
    monkeypatch.setattr(cache, "read_inputs", lambda *_: pytest.fail("read the frames"))
    options = PredictionOptions(predictor="geometric")
    *path, name = option.split(".")
    group = options.geometric
    for part in path:
        group = getattr(group, part)
    setattr(group, name, value)
    with pytest.raises(ValueError, match=f"--geometric.{message}"):
        predict(write_images(tmp_path / "shots"), tmp_path / "out", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fov_deg": 200.0}, "--fov-deg must lie between"),
        ({"masks": Path("nowhere")}, "--masks nowhere does not exist"),
        ({"cameras": Path("nowhere.json")}, "--cameras nowhere.json does not exist"),
        ({"masks_white_is_static": True}, "--masks, which is not given"),
    ],
)
def test_what_the_user_brings_is_looked_at_first(tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict(write_images(tmp_path / "shots"), tmp_path / "out", PredictionOptions(**options))


@pytest.fixture
def weights(monkeypatch):
    """Stands in for the hub: what is at hand, whether it answers, whether a download succeeds."""
    from das3r_ns.predictor.network import weights_source as weights

    def fail(repository):
        raise weights.WeightsError(f"{repository} is not to be had")

    monkeypatch.setattr(weights, "weights_available", lambda _: False)
    monkeypatch.setattr(weights, "hub_reachable", lambda: True)
    monkeypatch.setattr(weights, "download_weights", fail)
    return weights


def test_auto_never_fetches_weights_whose_licence_nobody_agreed_to(weights, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(weights, "download_weights", lambda _: pytest.fail("fetched weights unasked"))
    monkeypatch.setattr(weights, "weights_available", lambda _: True)
    options = PredictionOptions()
    assert registry.resolve(options) == ("geometric", "which needs no weights")
    options.network.weights = "mine"
    assert registry.resolve(options) == ("network", "since --network.weights names its weights")


def test_insisting_on_a_network_without_weights_says_how_to_bring_them(weights):
    options = PredictionOptions(predictor="network")
    with pytest.raises(weights.WeightsError, match="not to be had"):
        registry.build_predictor(options)
    options.network.weights = "nowhere.pth"
    with pytest.raises(weights.WeightsError, match=r"No weights at nowhere.pth. Give a folder"):
        registry.build_predictor(options)
