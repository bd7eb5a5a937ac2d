"""Every family in one stage answers in onnxruntime as it does in PyTorch."""

import pytest
import torch
from torch import nn

from ladle.detectors import FPN, LightSpec
from ladle.exporting import Exportable, Plan, files
from ladle.exporting.adapter import feature_maps, reference_output
from ladle.exporting.runtime import onnx_runner
from tests.exporting.small import SIDE, batch_of, needs_onnx, small_detector
from tests.families import DENSE

pytestmark = [pytest.mark.slow, needs_onnx]

LIGHT = {
    "yolox, light": ("yolox-tiny", {"depth": 1, "box": "cell", "light": LightSpec(shared=False)}),
    "rtmdet, light": ("rtmdet-tiny", {"depth": 1, "distance": "exp", "light": LightSpec()}),
    "gfl, light": ("gfl+lite-tiny", {}),
}
"""Heads with parts for each level; the last one has a path aggregation network too."""
NAMES = [*DENSE, "atss+dist", "paa+cop", "fcos+io", *LIGHT]
PLAN = Plan(nms=False, side=SIDE, half=True)
"""With ``half`` the exporter optimizes nothing, which takes a quarter of its time; no weight is rounded here."""


class Heads(Exportable):
    """The heads of all families on one backbone and feature pyramid, so that these are traced once."""

    def __init__(self, detectors):
        super().__init__(detectors[0], PLAN)
        for one in detectors[1:]:
            one.backbone = detectors[0].backbone
            if isinstance(one.spec.neck, FPN):
                one.neck = detectors[0].neck
        self.each = nn.ModuleList(Exportable(one, PLAN) for one in detectors)

    def forward(self, images, sizes):
        features = feature_maps(self.detector, images, normalized=False)
        answers = [one.predict(self._own(one.detector, features, images), sizes) for one in self.each]
        return tuple(tensor for raw in answers for tensor in (raw.boxes, raw.scores))

    def _own(self, detector, features, images):
        return features if detector.neck is self.detector.neck else feature_maps(detector, images, normalized=False)


@pytest.fixture(scope="module")
def heads():
    """The detectors by name, and what onnxruntime answers for four images and for one."""
    named = {name: (f"{name}-tiny", {}) for name in NAMES} | LIGHT
    detectors = [small_detector(model, seed, **head) for seed, (model, head) in enumerate(named.values())]
    network = Heads(detectors)
    names = [f"{kind}_{number}" for number in range(len(NAMES)) for kind in ("boxes", "scores")]
    run = onnx_runner(files.onnx_bytes(files.trace(network), PLAN, {}, names))
    batches = [batch_of(4), batch_of(1, seed=1)]
    return dict(zip(NAMES, detectors, strict=True)), [(batch, run(batch.images, batch.sizes)) for batch in batches]


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_scores_are_those_of_pytorch(heads, name):
    """It was traced with two images, and answers for four and for one; some of them are padded."""
    detectors, answers = heads
    place = 2 * NAMES.index(name)
    for batch, found in answers:
        with torch.no_grad():
            expected = reference_output(detectors[name], batch.images, batch.sizes)
        assert expected.scores.std() > 1e-3
        torch.testing.assert_close(found[place], expected.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(found[place + 1], expected.scores, rtol=0, atol=1e-4)


def test_priors_in_the_padding_have_no_score(heads):
    _, ((batch, found), _) = heads
    below = batch.sizes[1, 0]
    assert below < SIDE
    scores = found[2 * NAMES.index("fcos") + 1][1].amax(-1)[: (SIDE // 8) ** 2].view(SIDE // 8, SIDE // 8)
    assert (scores[below // 8 :] == 0).all()
    assert (scores[: below // 8] > 0).all()
