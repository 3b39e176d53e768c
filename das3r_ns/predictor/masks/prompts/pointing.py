"""Outlines of objects that boxes and clicks point at, by SAM 2 (Ravi et al., 2024) or SAM 3's tracker, whose calls in
the package transformers are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from das3r_ns.predictor.masks.prompts.base import Instance, Pointed, Prompt
from das3r_ns.predictor.masks.prompts.loading import device_of_choice, load_pretrained


class Pointer:
    """Draws the outline of each object that is pointed at.

    Raises:
        PromptWeightsError: the files in the folder cannot be read.
    """

    def __init__(self, folder: Path, device: torch.device, family: Literal["Sam2", "Sam3Tracker"]) -> None:
        self._network = load_pretrained(f"{family}Model", folder).to(device).eval()
        self._processor: Any = load_pretrained(f"{family}Processor", folder)
        self._device = device

    @torch.inference_mode()
    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], objects: Sequence[Pointed]
    ) -> list[tuple[Bool[np.ndarray, "h w"], float]]:
        """Mask and score (the network's own guess of the overlap) of each object, in order."""
        height, width = image.shape[:2]
        embeddings, out = None, []
        for one in objects:  # boxes and clicks of several objects cannot be mixed in one call
            asked: dict[str, Any] = {}
            if one.box is not None:
                asked["input_boxes"] = [[one.box.in_pixels(height, width).tolist()]]
            if one.clicks:
                asked["input_points"] = [[[click.in_pixels(height, width).tolist() for click in one.clicks]]]
                asked["input_labels"] = [[[int(click.inside) for click in one.clicks]]]
            if embeddings is None:
                pixels = self._processor(images=image, return_tensors="pt")["pixel_values"].to(self._device)
                embeddings = self._network.get_image_embeddings(pixels)
            given = self._processor(original_sizes=[[height, width]], return_tensors="pt", **asked).to(self._device)
            sizes = given.pop("original_sizes")
            # `get_image_embeddings` hands out a list that the network changes in place.
            found = self._network(**given, image_embeddings=list(embeddings), multimask_output=False)
            masks = self._processor.post_process_masks(found.pred_masks.float().cpu(), sizes.cpu())[0]
            out.append((masks[0, 0].numpy() > 0, float(found.iou_scores.flatten()[0])))
        return out


class Pointing:
    """Answers boxes and clicks, and no words. Satisfies `Segmenter`.

    Raises:
        ImportError, PromptWeightsError: as `load_pretrained`.
    """

    def __init__(self, folder: Path, family: Literal["Sam2", "Sam3Tracker"]) -> None:
        self._pointer = Pointer(folder, device_of_choice(), family)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]) -> list[Instance]:
        """See `Segmenter`."""
        pointed = [prompt for prompt in prompts if isinstance(prompt, Pointed)]
        assert len(pointed) == len(prompts), "words are asked of a network that reads none"
        return [Instance(mask, score) for mask, score in self._pointer(image, pointed)]
