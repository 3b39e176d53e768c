"""The frames that are read, what they are called and which of all frames they are."""

from dataclasses import dataclass, replace
from pathlib import Path

from das3r_ns.dataparser.input_kinds import DataKind, kind_of
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.transforms_file import TransformsFrame, read_transforms, transforms_of
from das3r_ns.video.clip import Clip, choose_frames, read_clip, read_images
from das3r_ns.video.image_folder import list_images
from das3r_ns.video.images import image_size


@dataclass(frozen=True)
class Source:
    """The frames of a clip with what they are called and where they come from."""

    clip: Clip
    frames: ClipFrames
    entries: list[TransformsFrame] | None = None
    """Of a dataset, the entry of each frame of the clip."""

    def only(self, kept: list[int]) -> "Source":
        """The same without the other frames, which slow the clip down by being left out."""
        return Source(
            self.clip.take(kept),
            replace(self.frames, numbers=tuple(self.frames.numbers[i] for i in kept)),
            None if self.entries is None else [self.entries[i] for i in kept],
        )


def read_source(data: Path, options: PredictionOptions, upright: bool) -> Source:
    """Frames of the data, and which of all frames they are."""
    if kind_of(data) == "dataset":
        entries, chosen = dataset_frames(data, options)
        images = [entry.image for entry in entries if entry.image is not None]
        clip = read_images([images[i] for i in chosen], options.video, data, upright)
        frames = ClipFrames(tuple(chosen), len(entries), tuple(path.name for path in images))
        if len(set(clip.names)) < len(clip):  # images of one name in two folders
            clip = replace(clip, names=tuple(entries[i].name for i in chosen))
        return Source(clip, frames, [entries[i] for i in chosen])
    clip = read_clip(data, options.video, upright)
    if options.masks is None and options.cameras is None:
        return Source(clip, ClipFrames(tuple(range(len(clip))), len(clip)))  # nothing has to be matched
    if data.is_dir():
        names = tuple(path.name for path in list_images(data))
        place = {name: i for i, name in enumerate(names)}
        return Source(clip, ClipFrames(tuple(place[name] for name in clip.names), len(names), names))
    from das3r_ns.video.video_file import index_file

    times = index_file(data).times_s
    numbers = tuple(int(name.rsplit("_", 1)[-1]) - 1 for name in clip.names)
    return Source(clip, ClipFrames(numbers, len(times), times_s=tuple(times)))


def stored_size(data: Path, kind: DataKind, upright: bool = False) -> tuple[int, int] | None:
    """Height and width of the frames as they are stored; None where they lie in a dataset, whose files say it.

    Args:
        upright: of images, after they were turned as their EXIF orientation says.
    """
    if kind == "dataset" or not data.exists():
        return None
    if data.is_dir():
        return image_size(list_images(data)[0], upright=upright)
    from das3r_ns.video.video_file import index_file

    return index_file(data).size


def dataset_frames(data: Path, options: PredictionOptions) -> tuple[list[TransformsFrame], list[int]]:
    """Frames of a nerfstudio dataset whose images exist, in order, and which of them are chosen."""
    transforms = transforms_of(data)
    assert transforms is not None
    listed = read_transforms(transforms)
    entries = [entry for entry in listed if entry.image is not None]
    missing = [entry.name for entry in listed if entry.image is None]
    if len(entries) < 2:
        raise FileNotFoundError(
            f"{transforms} lists {len(missing)} images that do not exist (first: {transforms.parent / missing[0]})."
            if missing
            else f"{transforms} gives {len(entries)} frames, and at least 2 are needed."
        )
    if missing:
        print(f"{transforms}: {len(missing)} of {len(listed)} images do not exist and are left out: {missing[0]}, ...")
    rate = options.video.folder_fps
    chosen = choose_frames(tuple(i / rate for i in range(len(entries))), options.video)
    if len(chosen) < 2:
        raise ValueError(f"{transforms} gives {len(chosen)} frames, and at least 2 are needed.")
    return entries, chosen
