"""The predictor built on the pairwise network: frames, pairs, pointmaps, global alignment, scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.files.json_files import to_jsonable
from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.estimator import FlowEstimator
from das3r_ns.predictor.flow.raft import RaftFlow, kept_weights
from das3r_ns.predictor.masks.decide import combine_user_masks
from das3r_ns.predictor.masks.prompts.build import build_prompted_objects
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.refiners.build import build_refiner
from das3r_ns.predictor.network.alignment import Alignment, AlignmentError, KnownGeometry
from das3r_ns.predictor.network.evidence_masks import contradicts, masks_from_evidence, with_masks
from das3r_ns.predictor.network.inference import FrameMemory, predict_pairs, product_type
from das3r_ns.predictor.network.memory import check_memory, memory_need
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.preprocess import Framing, preprocess_frames
from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS, Edge, NetworkPredictorConfig
from das3r_ns.predictor.network.weights import load_network
from das3r_ns.predictor.network.windows import PredictPairs, align_clip, cut, shared_frames
from das3r_ns.predictor.seed_points import no_points, seed_points
from das3r_ns.runtime.progress import CONSOLE
from das3r_ns.scene import Scene
from das3r_ns.video.clip import Clip

MIN_FRAMES = 2


class NetworkPredictor:
    """See the module. Satisfies `Predictor`. The weights are loaded at the first call and kept."""

    name = "network"

    def __init__(self, config: NetworkPredictorConfig | None = None) -> None:
        self.config = config or NetworkPredictorConfig()
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(automatic if self.config.device == "auto" else self.config.device)
        self._estimator = _flow_estimator(self.config, self._device) if self.config.alignment.flow_weight > 0 else None
        # What is missing (weights of the flow, an extra of the refiner) is said before the long work.
        with_evidence = self.config.masks_from == "evidence"
        self._mask_estimator = (
            (self._estimator or _flow_estimator(self.config, self._device)) if with_evidence else None
        )
        self._refiner = build_refiner(self.config.masks.refiner) if with_evidence else None
        self._network: PairwiseNetwork | None = None
        self._masks_missing = False

    def __call__(self, clip: Clip, priors: UserPriors = UserPriors()) -> Scene:  # noqa: B008  (frozen)
        """See `Predictor`.

        Raises:
            PredictionError: fewer than two frames, pairs that do not connect the clip, or weights that know nothing of
                moving objects while no masks are given.
            WeightsError: the weights are missing or do not fit.
        """
        if len(clip) < MIN_FRAMES:
            raise PredictionError(
                f"the clip has {len(clip)} frame, and a pair needs {MIN_FRAMES}. Give a longer clip or read more "
                "frames per second (--video.fps)."
            )
        if priors.prompt is not None and self._mask_estimator is None:
            raise PredictionError(
                "--masks-prompt needs masks from evidence: leave out --network.masks-from network, or --masks-prompt."
            )
        prompted = build_prompted_objects(priors.prompt)
        images, framed = preprocess_frames(clip.frames, self.config.long_side)
        network = self._load(priors)
        config = self.config
        num_weights = sum(weight.numel() for weight in network.parameters())
        need = memory_need(
            num_frames=len(clip),
            size=framed.size,
            graph=config.pairs,
            windows=config.windows,
            inference=config.inference,
            network=network.config,
            num_weights=num_weights,
            dtype=product_type(self._device, config.inference.precision),
            device=self._device,
        )
        CONSOLE.print(f"{len(clip)} frames of {framed.size[1]}x{framed.size[0]}, {need}", style="dim")
        warning = check_memory(need, 4 * num_weights, self._device, len(clip), config.long_side)
        if warning is not None:
            CONSOLE.print(warning, markup=False, highlight=False, soft_wrap=True)

        memory = FrameMemory(shared_frames(cut(len(clip), config.windows)))

        def predict(frames: Sequence[int], edges: list[Edge]) -> PairPredictions:
            pairs = predict_pairs(network, images[list(frames)], edges, config.inference, frames, memory)
            # What heads without weights say is made up: nothing is left out of the alignment for it.
            return replace(pairs, dynamic_prob1=0 * pairs.dynamic_prob1) if self._masks_missing else pairs

        evidence: Tensor | None = None

        def predict_with_evidence(frames: Sequence[int], edges: list[Edge]) -> PairPredictions:
            pairs = predict(frames, edges)
            return pairs if evidence is None else with_masks(pairs, framed.crop_maps(evidence)[list(frames)])

        aligned = self._aligned(predict_with_evidence, clip, priors, images, framed)
        scene = self._scene(clip, priors, aligned, framed, prompted)
        if self._mask_estimator is None or priors.all_masks_given or priors.T_world_camera is not None:
            return scene
        if contradicts(framed.pad(aligned.dynamic_prob, replicate=True), scene.dynamic_prob):
            # The flow term followed what these maps call static. Once more, with the maps that motion bears out.
            CONSOLE.print("The network's own dynamic maps contradict the motion: aligned again with maps from motion.")
            evidence, memory = scene.dynamic_prob, FrameMemory(shared_frames(cut(len(clip), config.windows)))
            aligned = self._aligned(predict_with_evidence, clip, priors, images, framed)
            scene = self._scene(clip, priors, aligned, framed, prompted, with_hint=False)
        return scene

    def _aligned(
        self,
        predict: PredictPairs,
        clip: Clip,
        priors: UserPriors,
        images: Float[Tensor, "n 3 h w"],
        framed: Framing,
    ) -> Alignment:
        config = self.config
        try:
            return align_clip(
                predict,
                len(clip),
                config.pairs,
                config.alignment,
                config.windows,
                _known_geometry(priors, clip, framed),
                self._flow_of(images, framed),
            )
        except AlignmentError as error:
            raise PredictionError(str(error)) from error

    def _load(self, priors: UserPriors) -> PairwiseNetwork:
        if self._network is None:
            self._network, report = load_network(self.config.weights, self._device)
            self._masks_missing = report.mask_heads_missing
        if self._masks_missing and self.config.masks_from == "network" and not priors.all_masks_given:
            raise PredictionError(
                f"the weights {self.config.weights} have no dynamic-mask heads (they are DUSt3R's or MonST3R's), so "
                "what moves would be made up. Leave out --network.masks-from network, train the heads (das3r "
                f"train-predictor), use weights that have them ({DEFAULT_WEIGHTS}), or give your own masks (--masks)."
            )
        return self._network

    def _flow_of(self, images: Float[Tensor, "n 3 h w"], framed: Framing) -> CheckedFlow | None:
        if self._estimator is None:
            return None

        def frame(i: int) -> np.ndarray:
            return ((images[i].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()

        return FlowBetweenFrames(frame, framed.size, self._estimator).checked

    def _scene(
        self,
        clip: Clip,
        priors: UserPriors,
        found: Alignment,
        framed: Framing,
        prompted: PromptedObjects | None,
        with_hint: bool = True,
    ) -> Scene:
        depth, confidence = framed.pad(found.depth), framed.pad(found.confidence)
        dynamic_prob = framed.pad(found.dynamic_prob, replicate=True)
        T_world_camera, K = found.T_world_camera, framed.K_to_image(found.K)
        if self._mask_estimator is not None:
            cameras = (T_world_camera, K)
            if priors.T_world_camera is not None and priors.K is not None:
                cameras = (priors.T_world_camera, priors.K)
            hint = dynamic_prob if with_hint and not self._masks_missing else None
            dynamic_prob = torch.from_numpy(
                masks_from_evidence(
                    clip, priors, *cameras, depth, confidence, hint,
                    self._mask_estimator, self.config.masks, self._refiner, prompted,
                )
            )  # fmt: skip
        elif priors.dynamic_mask is not None:
            given = F.interpolate(priors.dynamic_mask[:, None].float(), framed.resized, mode="area")[:, 0]
            frames = torch.ones(len(clip), dtype=torch.bool) if priors.mask_given is None else priors.mask_given
            found_there = dynamic_prob[frames].numpy()
            dynamic_prob[frames] = torch.from_numpy(
                combine_user_masks(found_there, given[frames].numpy(), priors.mask_mode)
            )
        if priors.T_world_camera is None:
            static = (depth > 0) & (dynamic_prob < 0.5)
            typical = float(depth[static if static.any() else depth > 0].median())
            T_world_camera = T_world_camera.double()
            T_world_camera, scale = geometry.apply_similarity(
                geometry.level_world(T_world_camera, typical), T_world_camera
            )
            depth = depth * scale
        else:
            T_world_camera, K = priors.T_world_camera, priors.K if priors.K is not None else K
        scene = Scene(
            T_world_camera=T_world_camera.float(),
            K=K.float(),
            image_size=clip.size,
            depth=depth,
            confidence=confidence,
            dynamic_prob=dynamic_prob,
            points=no_points(),
            pose_known=torch.ones(len(clip), dtype=torch.bool),
            names=clip.names,
            fps=clip.fps,
            provenance={
                "predictor": self.name,
                "settings": to_jsonable(self.config),
                **({} if prompted is None else {"prompt": prompted.record}),
            },
        )
        return replace(scene, points=seed_points(scene, clip.frames, self.config.max_points))


def _known_geometry(priors: UserPriors, clip: Clip, framed: Framing) -> KnownGeometry:
    K = priors.K
    focal = None
    if priors.focal_px is not None:
        focal = priors.focal_px * framed.resized[1] / clip.size[1]
    return KnownGeometry(focal, priors.T_world_camera, None if K is None else framed.K_to_network(K.float()))


def _flow_estimator(config: NetworkPredictorConfig, device: torch.device) -> FlowEstimator:
    if config.flow == "raft":
        return RaftFlow(config.raft_weights, str(device))
    weights = config.raft_weights or kept_weights()
    if config.flow == "dis" or weights is None:
        return DisFlow()
    return RaftFlow(weights, str(device))
