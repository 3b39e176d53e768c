"""Words, boxes and clicks by SAM 3 through the package transformers: one network that finds all objects of a class with
their outlines. Its weights have a licence of their own and are the user's to bring (`weights`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from das3r_ns.predictor.masks.prompts.base import Instance, Pointed, Prompt, Words
from das3r_ns.predictor.masks.prompts.loading import device_of_choice, load_pretrained
from das3r_ns.predictor.masks.prompts.pointing import Pointer


class Sam3:
    """Satisfies `Segmenter`.

    Args:
        threshold: score from which an object counts.

    Raises:
        ImportError, PromptWeightsError: as `load_pretrained`.
    """

    def __init__(self, folder: Path, threshold: float) -> None:
        self._device = device_of_choice()
        self._network = load_pretrained("Sam3Model", folder).to(self._device).eval()
        self._processor: Any = load_pretrained("Sam3Processor", folder)
        self._folder, self._pointer = folder, None
        self._threshold = threshold

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]) -> list[Instance]:
        """See `Segmenter`."""
        words = [prompt.text for prompt in prompts if isinstance(prompt, Words)]
        pointed = [prompt for prompt in prompts if isinstance(prompt, Pointed)]
        found = self._detect(image, words) if words else []
        if pointed:
            self._pointer = self._pointer or Pointer(self._folder, self._device, "Sam3Tracker")
            found += [Instance(mask, score) for mask, score in self._pointer(image, pointed)]
        return found

    @torch.inference_mode()
    def _detect(self, image: UInt8[np.ndarray, "h w 3"], words: list[str]) -> list[Instance]:
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"].to(self._device)
        seen, out = self._network.get_vision_features(pixels), []
        for text in words:
            asked = self._processor(text=text, return_tensors="pt").to(self._device)
            found = self._network(
                vision_embeds=seen, input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]
            )
            objects = self._processor.post_process_instance_segmentation(
                found, threshold=self._threshold, target_sizes=[image.shape[:2]]
            )[0]
            for mask, score in zip(objects["masks"], objects["scores"]):
                out.append(Instance(mask.cpu().numpy() > 0, float(score), text))
        return out
