"""A scene folder with the true masks in place of the predicted ones: shows what the masks of the predictor cost."""

from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange

from das3r_ns.datasets import TruthClip
from das3r_ns.scene import read_frames_of_scene, read_scene, write_scene


def write_with_true_masks(predicted: Path, truth: TruthClip, out: Path) -> dict[str, int]:
    """Write a copy of a scene folder with the `dynamic_prob` and masks of the ground truth. Cameras, depth and seed
    points stay.

    Args:
        predicted: scene folder.
        truth: of the same frames and size; frames without a mask keep the predicted one.
        out: scene folder to write; one that is there is replaced.

    Returns:
        `frames_with_truth`, how many masks were replaced.

    Raises:
        ValueError: the clip has no true masks at all.
    """
    if truth.dynamic_mask is None:
        raise ValueError(f"--true-masks: {truth.name} has no true masks")
    scene = read_scene(predicted)
    if scene.lens is not None:
        truth = truth.without_distortion(scene.lens, scene.image_size[1])
    assert truth.dynamic_mask is not None
    dynamic_prob, replaced = scene.dynamic_prob.clone(), 0
    for i in range(len(scene)):
        mask = truth.dynamic_mask(i)
        if mask is not None:
            # Share of moving pixels under each pixel of the map.
            full = rearrange(mask.float(), "h w -> 1 1 h w")
            dynamic_prob[i] = torch.nn.functional.interpolate(full, size=dynamic_prob.shape[1:], mode="area")[0, 0]
            replaced += 1
    provenance = {**scene.provenance, "true_masks": replaced}
    scene = replace(scene, dynamic_prob=dynamic_prob, provenance=provenance)
    write_scene(scene, read_frames_of_scene(predicted), out, overwrite=True)
    return {"frames_with_truth": replaced}
