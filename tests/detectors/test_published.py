"""Networks of published sizes answer as the public implementations did, and cost what was published."""

import pytest
import torch

from ladle.detectors.detector import Detector
from ladle.families import from_published
from tests.golden.networks import CLASSES, golden, image, shapes_of, state_of

COCO = tuple(f"class {number}" for number in range(80))
RECORDED = [
    *((name, "mmdet") for name in ("rtmdet-t", "rtmdet-s", "rtmdet-m", "yolox-n", "yolox-t", "yolox-s", "yolox-m")),
    *((name, "mmdet") for name in ("retinanet-r50", "atss-r50", "gfl-r50", "paa-r50")),
    ("yolox-n", "yolox"),
    ("yolox-s", "yolox"),
]


def tensors(record):
    state = state_of(shapes_of(record), float(record["gain"]))
    return {name: torch.from_numpy(value) for name, value in state.items()}


def pixels(record, detector: Detector):
    """The recorded image as Ladle takes it: red, green and blue in [0, 1]."""
    values = torch.from_numpy(image(float(record["most"]))) / 255
    return values.flip(1)


@pytest.mark.parametrize(("name", "source"), RECORDED)
@torch.no_grad()
def test_a_published_network_answers_as_its_release(name, source):
    record = golden(name, source)
    detector = from_published(tensors(record), name, COCO)
    found = detector(pixels(record, detector))[0].predictions
    torch.testing.assert_close(found.logits[..., :CLASSES], torch.from_numpy(record["logits"]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.boxes, torch.from_numpy(record["boxes"]), rtol=1e-4, atol=1e-2)
    if len(record["quality"]):
        torch.testing.assert_close(found.quality, torch.from_numpy(record["quality"]), rtol=1e-4, atol=1e-4)
    if "parameters" in record and not name.endswith("r50"):  # those have frozen normalizations
        assert sum(weight.numel() for weight in detector.parameters()) == record["parameters"]
