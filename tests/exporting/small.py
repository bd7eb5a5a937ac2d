"""Detectors of a few layers whose predictions differ from image to image, and images of several sizes."""

from dataclasses import replace

import pytest
import torch

from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, Scenes
from ladle.data.transforms import Resize
from ladle.exporting import writes_onnx
from ladle.families import detector_spec

SIDE = 64

needs_onnx = pytest.mark.skipif(not writes_onnx(), reason="PyTorch 2.6 cannot write ONNX, as a test of export shows")


def small_detector(name, seed=0, depth=0, **head):
    """A detector with random weights, none of them where training starts, and no more layers than it must have.

    ``head`` are fields of its dense head.
    """
    spec = detector_spec(name, CLASSES, imgsz=SIDE)
    if not spec.regions:
        spec = replace(spec, head=replace(spec.head, depth=depth, **head))
    torch.manual_seed(seed)
    detector = spec.build().eval()
    with torch.no_grad():
        for weight in detector.stages.parameters():
            weight.add_((0.05 if spec.regions else 0.4) * torch.randn_like(weight))
        if detector.head is not None:
            for conv in detector.head.class_conv.modules():
                if isinstance(conv, torch.nn.Conv2d):
                    conv.bias.add_(4)  # from the rarity of objects at which training starts
    return detector


def samples(count, seed=0):
    """Scenes as the network sees them; every other one is cut to three quarters of its height."""
    scenes = [Resize(SIDE)(scene) for scene in Scenes(count, seed=seed, size=SIDE)]
    return [
        replace(scene, image=scene.image[:, : SIDE * 3 // 4], original=(SIDE * 3 // 4, SIDE)) if number % 2 else scene
        for number, scene in enumerate(scenes)
    ]


def batch_of(count, seed=0, least=SIDE):
    return collate(samples(count, seed), least)
