"""Masks that the user brings along: files, a dataset's, another program's, or the transparency of the frames."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from das3r_ns.dataparser.file_names import bare_name, last_number
from das3r_ns.dataparser.input_frames import Source
from das3r_ns.dataparser.known_masks import FrameMasks, describe, match_masks, read_masks
from das3r_ns.dataparser.mask_files import MaskFiles, of_files, open_masks
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.options import Numbering, PredictionOptions
from das3r_ns.dataparser.reconstructions.assign import assign
from das3r_ns.dataparser.reconstructions.maps import moving_of_frames
from das3r_ns.dataparser.reconstructions.table import read_reconstruction
from das3r_ns.dataparser.reconstructions.types import Reconstruction
from das3r_ns.dataparser.transforms_file import TransformsFrame
from das3r_ns.files.json_files import read_json_object
from das3r_ns.scene import is_scene_folder

DOUBTFUL_SHARE = 0.6
"""Share of the images that masks of another program cover, from which they are doubted."""


def masks_of(source: Source, options: PredictionOptions) -> FrameMasks | None:
    """The user's masks of the frames, those of the dataset, or the transparency of the frames themselves."""
    if options.masks is not None:
        of_other = read_reconstruction(options.masks)
        if of_other is not None:
            return _masks_of_reconstruction(of_other, source, options)
        return _masks_of_files(options.masks, source, options)
    if source.entries is not None and any(entry.mask for entry in source.entries):
        return _masks_of_dataset(source.entries, source)
    if source.clip.alpha is None:
        return None
    opaque = source.clip.alpha.float() / 255
    moving = opaque if options.video.alpha == "opaque-moves" else 1 - opaque
    return FrameMasks(moving, torch.ones(len(opaque), dtype=torch.bool))


def _masks_of_files(path: Path, source: Source, options: PredictionOptions) -> FrameMasks:
    """Masks that `--masks` names, matched to the frames."""
    masks = open_masks(path)
    inside_scene = path.is_dir() and is_scene_folder(path.parent)
    numbering = options.numbering
    if inside_scene and numbering == "auto":
        masks, numbering = _named_by_scene(masks, path.parent, source.frames)
    matching = match_masks(masks, source.frames, numbering)
    if not any(row is not None for row in matching.rows):
        raise ValueError(f"none of the {len(source.clip)} frames that are read has a mask in {path}.")
    line = describe(matching, source.frames, path)
    if line is not None:
        print(line)
    if inside_scene and not options.masks_white_is_static:
        print(f"Masks: {path} belongs to a scene folder, where white is static.")
    white_is_static = options.masks_white_is_static or inside_scene
    return read_masks(masks, matching.rows, source.clip.size, white_is_static)


def _masks_of_dataset(entries: Sequence[TransformsFrame], source: Source) -> FrameMasks:
    """Masks that the frames of a transforms.json name."""
    with_mask = [i for i, entry in enumerate(entries) if entry.mask is not None]
    paths = [path for i in with_mask if (path := entries[i].mask) is not None]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist, and is the mask of a frame ({len(missing)} such).")
    rows: list[int | None] = [None] * len(entries)
    for k, i in enumerate(with_mask):
        rows[i] = k
    if len(with_mask) < len(rows):
        print(f"Masks: {len(with_mask)} of {len(rows)} frames have one; in the others what moves is predicted.")
    files = of_files(source.clip.source or Path(), paths)
    return read_masks(files, tuple(rows), source.clip.size, white_is_static=True, is_dataset=True)


def _masks_of_reconstruction(given: Reconstruction, source: Source, options: PredictionOptions) -> FrameMasks:
    """Masks of what moves by another program, in its own polarity."""
    if options.masks_white_is_static:
        raise ValueError(
            f"{given.path} ({given.tool}) has a polarity of its own: leave out --masks-white-is-static, or give the "
            "files of the masks themselves."
        )
    size = (source.clip.size[0], source.clip.size[1])
    assigned = assign(given, source.clip, source.frames, size, numbering=options.numbering)
    moving = moving_of_frames(assigned, size)
    given_of = torch.tensor([row is not None for row in assigned.rows])
    share = float(moving[given_of].mean())
    print(f"Masks: {given.tool}, {int(given_of.sum())} of {len(moving)} frames, {share:.0%} of their pixels move.")
    if share > DOUBTFUL_SHARE:
        print(f"Masks: more than {DOUBTFUL_SHARE:.0%} of the images would move. Are they inverted?")
    return FrameMasks(moving, given_of)


def _named_by_scene(masks: MaskFiles, scene: Path, frames: ClipFrames) -> tuple[MaskFiles, Numbering]:
    """Masks of a scene folder under the names that their frames have in the clip: the folder numbers its own frames,
    which need not be all of the clip's."""
    names = read_json_object(scene / "predictor.json").get("names")
    numbers = [last_number(bare_name(name)) for name in masks.names or ()]
    if not isinstance(names, list) or not all(n is not None and 1 <= n <= len(names) for n in numbers):
        return masks, "auto"
    renamed = tuple(str(names[n - 1]) for n in numbers if n is not None)
    return replace(masks, names=renamed), "from-1" if frames.names is None else "by-name"
