"""The networks that answer prompts, of the real classes of transformers, tiny and untrained, in folders as the hub has
them: Grounding DINO, SAM 2 as its checkpoint for videos, SAM 3 with its tracker."""

import json
from pathlib import Path
from typing import Any

import torch

POINTED: dict[str, Any] = {
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}
MEMORY: dict[str, Any] = {
    "memory_attention_hidden_size": 32,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [8, 8],
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "mask_downsampler_embed_dim": 32,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32,
    "memory_fuser_num_layers": 1,
}
SIZES = [[32, 32], [16, 16], [8, 8]]


def write_grounding_dino(folder: Path) -> Path:
    """Knows the words person, dog and white."""
    import transformers as tf

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "person", "dog", "white", "##s"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    config = tf.GroundingDinoConfig(
        backbone_config=tf.SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=tf.BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=64,
        ),
        num_queries=12, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16, d_model=32,
        encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=32, disable_custom_kernels=True,
    )  # fmt: skip
    tf.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = tf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tf.GroundingDinoProcessor(images, tf.BertTokenizer(vocab=str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def write_sam2(folder: Path) -> Path:
    """The checkpoint is that for videos, as the published ones are."""
    import transformers as tf

    torch.manual_seed(0)
    hiera = tf.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[128, 128], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 8, 4],
    )  # fmt: skip
    vision = tf.Sam2VisionConfig(
        backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=SIZES, fpn_hidden_size=32
    )
    config = tf.Sam2VideoConfig(vision_config=vision, image_size=128, **POINTED, **MEMORY)
    tf.Sam2VideoModel(config).save_pretrained(folder)
    tf.Sam2Processor(_pointing_images(tf.Sam2ImageProcessor, 128)).save_pretrained(folder)
    return folder


def write_sam3(folder: Path) -> Path:
    """Reads letters."""
    import transformers as tf
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    backbone = tf.Sam3ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=112, patch_size=14,
        window_size=4, global_attn_indexes=[1], pretrain_image_size=56,
    )  # fmt: skip
    vision = tf.Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=SIZES)
    layers = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "projection_dim": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    detector = tf.Sam3Config(
        vision_config=vision, text_config=text, geometry_encoder_config=layers, detr_encoder_config=layers,
        detr_decoder_config={"num_queries": 8, **layers},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    pointed = {**POINTED, "prompt_encoder_config": {**POINTED["prompt_encoder_config"], "image_size": 112}}
    pointed["prompt_encoder_config"]["patch_size"] = 14
    tracker = tf.Sam3TrackerVideoConfig(vision_config=vision, image_size=112, **pointed, **MEMORY)
    config = tf.Sam3VideoConfig(detector_config=detector, tracker_config=tracker)
    tf.Sam3VideoModel(config).save_pretrained(folder)
    # The published checkpoint names the tracker's weights once; this version of transformers writes the prefix twice.
    file = folder / "model.safetensors"
    weights = {k.replace("tracker_model.tracker_model.", "tracker_model."): v for k, v in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    letters = [chr(code) for code in range(97, 123)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = tf.CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tf.Sam3Processor(_pointing_images(tf.Sam3ImageProcessor, 112), tokenizer).save_pretrained(folder)
    return folder


def _pointing_images(kind: Any, side: int) -> Any:
    mask = side // 4
    return kind(size={"height": side, "width": side}, mask_size={"height": mask, "width": mask})
