"""Put a truth together from a folder and from what is given beside it."""

from dataclasses import replace
from pathlib import Path

import torch

from das3r_ns.datasets import (
    TruthClip,
    TruthError,
    is_truth_folder,
    read_dynamic_mask,
    read_poses,
    read_truth_folder,
)
from das3r_ns.datasets.truth_files import images_of


def assemble_truth(
    folder: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    clean: Path | None = None,
    poses: Path | None = None,
    focal_px: float | None = None,
) -> TruthClip:
    """The truth of a folder, with single parts replaced by, or made of, other folders and files.

    Raises:
        TruthError: nothing is given, or the parts given are of different numbers of frames.
    """
    if folder is not None and not folder.is_dir():
        raise TruthError(f"--truth {folder} is no folder.")
    if folder is not None and not is_truth_folder(folder):
        # A folder of masks or poses alone is a truth too; its layout then says which.
        masks = masks or _if_there(folder / "dynamic_masks")
        clean = clean or _if_there(folder / "clean")
        poses = poses or _if_there(folder / "T_world_camera.txt")
        if masks is None and clean is None and poses is None:
            raise TruthError(
                f"--truth {folder} holds none of images/, dynamic_masks/, clean/, T_world_camera.txt. Give the folder "
                "that does, or --truth-masks, --truth-poses and so on."
            )
        folder = None
    mask_paths = None if masks is None else images_of(masks)
    given = {
        "--truth-images": None if images is None else images_of(images),
        "--truth-masks": mask_paths,
        "--truth-clean": None if clean is None else images_of(clean),
        "--truth-poses": None if poses is None else read_poses(poses),
    }
    counts = {name: len(value) for name, value in given.items() if value is not None}
    truth = None if folder is None else read_truth_folder(folder)
    if truth is not None:
        counts = {f"--truth {folder}": len(truth), **counts}
    if not counts:
        raise TruthError("there is no truth to compare with: give --truth, --truth-masks, --truth-poses or the like.")
    if len(set(counts.values())) > 1:
        raise TruthError(
            "the truth is of different numbers of frames: " + ", ".join(f"{k} has {v}" for k, v in counts.items()) + "."
        )
    if truth is None:
        source = next(p for p in (masks, poses, images, clean) if p is not None)
        truth = TruthClip(name=source.parent.name, folder=source.parent, num_frames=next(iter(counts.values())))
    if given["--truth-images"] is not None:
        truth = replace(truth, images=given["--truth-images"])
    if mask_paths is not None:
        truth = replace(truth, dynamic_mask=lambda i: read_dynamic_mask(mask_paths[i]))
    if given["--truth-clean"] is not None:
        truth = replace(truth, clean=given["--truth-clean"])
    if given["--truth-poses"] is not None:
        truth = replace(truth, T_world_camera=given["--truth-poses"])
    if focal_px is not None:
        if not focal_px > 0:
            raise TruthError(f"--truth-focal-px must be positive, got {focal_px}.")
        K = torch.diag(torch.tensor([focal_px, focal_px, 1.0], dtype=torch.float64))  # only the focal is compared
        truth = replace(truth, K=K.repeat(len(truth), 1, 1))
    return truth


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
