"""Tiny detectors of transformers with random weights, saved as a user's checkpoint is."""

import torch
import transformers
from transformers.utils import logging

NAMES = ("N/A", "cat", "dog")
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "layer_type": "basic"}
_FINE = {"out_features": ["stage2", "stage3", "stage4"]}
_DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 12,
    "use_timm_backbone": False,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
_RT_DETR = {
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 8, 8],
    "encoder_ffn_dim": 16,
    "d_model": 16,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "num_queries": 12,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
}
_HG = {
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8] * 4,
    "stage_mid_channels": [8] * 4,
    "stage_out_channels": [8] * 4,
    "stage_num_blocks": [1] * 4,
    "stage_numb_of_layers": [1] * 4,
    "hidden_sizes": [8] * 4,
    "depths": [1] * 4,
}
_YOLOS = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": [64, 64],
    "num_detection_tokens": 12,
}

SIDES, SQUARE = {"shortest_edge": 64, "longest_edge": 96}, {"height": 64, "width": 64}
FAMILIES = {
    "Detr": ("Detr", SIDES),
    "ConditionalDetr": ("ConditionalDetr", SIDES),
    "DeformableDetr": ("DeformableDetr", SIDES),
    "Yolos": ("Yolos", SIDES),
    "RTDetr": ("RTDetr", SQUARE),
    "RTDetrV2": ("RTDetr", SQUARE),
    "DFine": ("RTDetr", SQUARE),
}
"""The image processor of each family, and the size that it is set to."""


def _config(family, names):
    table = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    make = getattr(transformers, f"{family}Config")
    if family == "Yolos":
        return make(**_YOLOS, **table)
    if family == "DFine":
        return make(backbone_config=transformers.HGNetV2Config(**_HG, **_FINE), depth_mult=0.3, **_RT_DETR, **table)
    if family.startswith("RT"):
        return make(backbone_config=transformers.RTDetrResNetConfig(**_STAGES, **_FINE), **_RT_DETR, **table)
    last = {"out_features": ["stage4"]}
    fine = family == "DeformableDetr"
    backbone = transformers.ResNetConfig(**_STAGES, **(_FINE if fine else last))
    return make(backbone_config=backbone, **_DETR, **({"num_feature_levels": 3} if fine else {}), **table)


def checkpoint(folder, family, names=NAMES):
    """Save a detector whose queries find different boxes and classes in images of 64 pixels; returns it."""
    logging.disable_progress_bar()
    torch.manual_seed(2)
    model = getattr(transformers, f"{family}ForObjectDetection")(_config(family, names))
    with torch.no_grad():
        for name, one in model.named_parameters():
            queries = any(word in name for word in ("query_pos", "tokens"))
            if queries or one.dim() == 2:
                one.normal_(std=3.0 if queries else 2.0 / one.shape[-1] ** 0.5)
            elif "class" in name or "score" in name:
                one.zero_()
    model.save_pretrained(folder)
    processor, size = FAMILIES[family]
    getattr(transformers, f"{processor}ImageProcessor")(size=size).save_pretrained(folder)
    return model.eval()
