"""Words by Grounding DINO (Liu et al., ECCV 2024), outlines by SAM 2, both through the package transformers.

The detector gives each of its queries a score for every token of the text. Its own post-processing makes phrases of the
tokens above a threshold, which may be halves of words or mix classes. Here each class has its tokens, and a box has the
class whose tokens score highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from das3r_ns.predictor.masks.prompts.base import Box, Instance, Pointed, Prompt, Words
from das3r_ns.predictor.masks.prompts.loading import device_of_choice, load_pretrained
from das3r_ns.predictor.masks.prompts.pointing import Pointer

MAX_OVERLAP = 0.7
"""Intersection over union of two boxes of a class, from which they are one object."""
MAX_OBJECTS = 50
"""In an image; those with the highest scores are kept."""


class GroundedSam2:
    """Satisfies `Segmenter`.

    Args:
        threshold: score from which a box counts.

    Raises:
        ImportError, PromptWeightsError: as `load_pretrained`.
    """

    def __init__(self, detector: Path, outlines: Path, threshold: float) -> None:
        self._device = device_of_choice()
        self._detector = load_pretrained("GroundingDinoForObjectDetection", detector).to(self._device).eval()
        self._processor: Any = load_pretrained("GroundingDinoProcessor", detector)
        self._pointer = Pointer(outlines, self._device, "Sam2")
        self._threshold = threshold

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]) -> list[Instance]:
        """See `Segmenter`."""
        words = [prompt.text for prompt in prompts if isinstance(prompt, Words)]
        found = self._detect(image, words) if words else []
        boxes = [Pointed(box) for box, _, _ in found]
        outlines = self._pointer(image, [*boxes, *(p for p in prompts if isinstance(p, Pointed))])
        named = [Instance(mask, score, label) for (mask, _), (_, score, label) in zip(outlines, found)]
        return [*named, *(Instance(mask, score) for mask, score in outlines[len(found) :])]

    @torch.inference_mode()
    def _detect(self, image: UInt8[np.ndarray, "h w 3"], words: list[str]) -> list[tuple[Box, float, str]]:
        text = "".join(f"{word.lower()}. " for word in words).strip()
        given = self._processor(images=image, text=text, return_tensors="pt").to(self._device)
        classes = classes_of_tokens(given["input_ids"][0], self._processor.tokenizer, len(words))
        if classes.shape[0] > self._detector.config.max_text_len:
            raise ValueError(
                f"--masks-prompt is too long: {classes.shape[0]} tokens, and Grounding DINO takes "
                f"{self._detector.config.max_text_len}. Name fewer or shorter classes."
            )
        out = self._detector(**given)
        tokens = out.logits[0].sigmoid()[:, : len(classes)].cpu()
        scores = torch.stack([tokens[:, classes == k].max(dim=1).values for k in range(len(words))], dim=1)
        score, label = scores.max(dim=1)
        boxes = box_convert(out.pred_boxes[0].float().cpu(), "cxcywh", "xyxy").clamp(0, 1)
        sure = (score >= self._threshold) & ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) > 0)
        boxes, score, label = boxes[sure], score[sure], label[sure]
        kept = batched_nms(boxes, score, label, MAX_OVERLAP)[:MAX_OBJECTS]  # in the order of their scores
        return [(Box(*boxes[k].tolist()), float(score[k]), words[int(label[k])]) for k in kept]


def classes_of_tokens(input_ids: Int[Tensor, "t"], tokenizer: Any, num_classes: int) -> Int[Tensor, "t"]:
    """The class that each token of "[CLS] a dog . a person . [SEP]" belongs to; -1 for what separates them.

    Raises:
        ValueError: some class has no tokens, as of a word in a script that the tokenizer does not know.
    """
    classes, current = torch.full(input_ids.shape, -1), 0
    stop, special = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for i, token in enumerate(input_ids.tolist()):
        if token == stop:
            current += 1
        elif token not in special:
            classes[i] = current
    if current != num_classes or any(not bool((classes == k).any()) for k in range(num_classes)):
        raise ValueError(
            "--masks-prompt cannot be read word by word by Grounding DINO. Give English nouns, separated by commas."
        )
    return classes
