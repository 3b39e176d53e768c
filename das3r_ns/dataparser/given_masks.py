"""Masks that the user brings along: files, a dataset's, another program's, or the transparency of the frames."""

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
from das3r_ns.files.json_files import read_json_object
from das3r_ns.scene import is_scene_folder

DOUBTFUL_SHARE = 0.6
"""Share of the images that masks of another program cover, from which they are doubted."""


def masks_of(source: Source, options: PredictionOptions) -> FrameMasks | None:
    """The user's masks of the frames, those of the dataset, or the transparency of the frames themselves."""
    size, alpha = source.clip.size, source.clip.alpha
    of_other = None if options.masks is None else read_reconstruction(options.masks)
    if of_other is not None:
        return _masks_of_reconstruction(of_other, source, options)
    if options.masks is not None:
        masks = open_masks(options.masks)
        inside_scene = options.masks.is_dir() and is_scene_folder(options.masks.parent)
        numbering = options.numbering
        if inside_scene and numbering == "auto":
            masks, numbering = _named_by_scene(masks, options.masks.parent, source.frames)
        matching = match_masks(masks, source.frames, numbering)
        if not any(row is not None for row in matching.rows):
            raise ValueError(f"none of the {len(source.clip)} frames that are read has a mask in {options.masks}.")
        line = describe(matching, source.frames, options.masks)
        if line is not None:
            print(line)
        if inside_scene and not options.masks_white_is_static:
            print(f"Masks: {options.masks} belongs to a scene folder, where white is static.")
        return read_masks(masks, matching.rows, size, options.masks_white_is_static or inside_scene)
    if source.entries is None or not any(entry.mask for entry in source.entries):
        if alpha is None:
            return None
        opaque = alpha.float() / 255
        moving = opaque if options.video.alpha == "opaque-moves" else 1 - opaque
        return FrameMasks(moving, torch.ones(len(alpha), dtype=torch.bool))
    with_mask = [i for i, entry in enumerate(source.entries) if entry.mask is not None]
    paths = [source.entries[i].mask for i in with_mask]
    missing = [path for path in paths if path is not None and not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist, and is the mask of a frame ({len(missing)} such).")
    rows: list[int | None] = [None] * len(source.entries)
    for k, i in enumerate(with_mask):
        rows[i] = k
    if len(with_mask) < len(rows):
        print(f"Masks: {len(with_mask)} of {len(rows)} frames have one; in the others what moves is predicted.")
    files = of_files(source.clip.source or Path(), [path for path in paths if path is not None])
    return read_masks(files, tuple(rows), size, white_is_static=True, is_dataset=True)


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
