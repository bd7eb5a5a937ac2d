"""The heads of all families: where they start, what they say, how they come back, and that they learn."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from ladle.boxes import decode_distances, encode_distances
from ladle.criteria import DenseCriterion
from ladle.detectors import Anchors, DenseSpec, DetectorSpec, load_detector, read_spec, save_detector
from ladle.families import detector_spec, lessons_of
from ladle.types import Assignment, GroundTruth
from tests.families import DENSE

HEADS = ("paa+dist", "atss+dist", "fcos+dist", "retinanet+dist", "paa+cop", "paa+io", "fcos+cop+dist")
"""Families with another head."""

SIZES = torch.tensor([[64, 96], [50, 80]])
TRUTH = GroundTruth.pad(
    [torch.tensor([[8.0, 8, 40, 50], [50, 10, 90, 60]]), torch.tensor([[5.0, 5, 60, 45]])],
    [torch.tensor([0, 2]), torch.tensor([1])],
)


def build(family, backbone="tiny"):
    torch.manual_seed(0)
    return detector_spec(f"{family}-{backbone}", ("a", "b", "c"), imgsz=96).build()


def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def nearest(priors, truth):
    """Priors near the middle of an object learn it, the rest is background."""
    middles = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
    apart = torch.cdist(priors.centers.expand(len(middles), -1, -1), middles)
    distance, index = apart.masked_fill(~truth.valid.unsqueeze(1), torch.inf).min(-1)
    return Assignment.hard(index, (distance < 1.5 * priors.stride) & priors.valid, priors.valid)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*DENSE, *HEADS])
def test_every_head_learns_in_a_few_steps(family):
    detector = build(family).train()
    (lesson,) = lessons_of(detector.spec)
    # AutoAssign's own losses are those of bags, which this plan knows nothing of.
    criterion = lesson.criterion if family != "autoassign" else DenseCriterion(quality_weight=0.1)
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, momentum=0.9)
    paid = []
    for _ in range(8):
        output = detector(images(), SIZES)[0]
        terms = criterion(output, TRUTH, nearest(output.priors, TRUTH))
        loss = sum(term.total / torch.maximum(term.count, term.floor) for term in terms.values())
        paid.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        assert (detector.stages[0].box_conv.bias.grad != 0).all(), "an edge is without a gradient"
        optimizer.step()
    assert paid[-1] < paid[0]


@pytest.mark.parametrize("family", [*DENSE, *HEADS])
def test_every_head_comes_back_from_its_file_unchanged(family, tmp_path):
    detector = build(family).eval()
    save_detector(detector, tmp_path / "d.safetensors")
    again = load_detector(tmp_path / "d.safetensors").eval()
    assert again.spec == detector.spec
    before, after = (d(images(), SIZES)[0].predictions for d in (detector, again))
    for name in ("logits", "boxes", "quality", "edges", "center_prior"):
        value = getattr(before, name)
        assert value is None or torch.equal(value, getattr(after, name))


@pytest.mark.parametrize("family", DENSE)
def test_every_head_finds_boxes_once_it_is_sure(family):
    detector = build(family).eval()
    for conv in (detector.stages[0].class_conv, detector.stages[0].quality_conv):
        if conv is not None:
            torch.nn.init.constant_(conv.bias, 2.0)
    output = detector(images(), SIZES)[0]
    for found in detector.spec.inference.find(output, SIZES, SIZES):
        assert len(found.boxes) > 0
        assert found.boxes.isfinite().all()


@pytest.mark.parametrize("family", ["fcos", "ota", "tood", "yolox", "rtmdet", "autoassign"])
@pytest.mark.parametrize("backbone", ["tiny", "r18"])
def test_a_head_of_distances_starts_as_its_priors(family, backbone):
    detector = build(family, backbone).eval()
    stage = detector.stages[0]
    torch.nn.init.zeros_(stage.box_conv.weight)
    if stage.spec.aligned:
        torch.nn.init.zeros_(stage.box_alignment[-1].weight)  # it samples boxes a little beside their cells
    output = detector(images(), SIZES)[0]
    expected = output.priors.boxes.expand(2, -1, -1)
    torch.testing.assert_close(output.predictions.boxes, expected, rtol=1e-5, atol=1e-3)


def test_autoassign_starts_at_the_published_numbers():
    stage = build("autoassign", "r18").stages[0]
    torch.testing.assert_close(stage.box_conv.bias, torch.full((4,), 4.0), rtol=0, atol=0.02)
    torch.testing.assert_close(stage.class_conv.bias.sigmoid(), torch.full((3,), 0.02))
    maps = [torch.zeros(2, 256, 4, 4)] * 5
    predictions, _ = stage.eval()(maps, stage.propose(maps, None, None, None))
    assert predictions.center_prior.shape == (2, 3, 4)
    assert torch.equal(predictions.center_prior[1], torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, -1))


def test_only_yolox_starts_with_an_objectness_near_zero():
    for family in ("yolox", "paa", "autoassign"):
        start = build(family).stages[0].quality_conv.bias.sigmoid()
        torch.testing.assert_close(start, torch.full((1,), 0.01 if family == "yolox" else 0.5))


@pytest.mark.parametrize("family", DENSE)
def test_points_stand_where_the_family_puts_them(family):
    priors = build(family)(images(), SIZES)[0].priors
    middle = 0.5 if family in ("fcos", "ota", "tood", "yolox", "rtmdet") else 0.0
    assert priors.grids[0].offset == middle
    torch.testing.assert_close(priors.centers[0, 0], torch.full((2,), 8 * middle))


def test_distances_and_boxes_are_inverse():
    points = torch.tensor([[4.0, 4.0], [100.0, 20.0]])
    boxes = torch.tensor([[0.0, 1.0, 9.0, 30.0], [110.0, 0.0, 130.0, 10.0]])
    torch.testing.assert_close(decode_distances(points, encode_distances(points, boxes)), boxes)


@pytest.mark.parametrize("kind", ["distances", "distribution"])
def test_a_head_says_any_box_exactly_at_any_anchor(kind):
    anchors = Anchors(scales=(4.0, 6.0), ratios=(0.5, 1.0), offset=0.5)
    stage = DenseSpec(8, 0, anchors, level_scale=False, box=kind).build(2, (8, 16))
    priors = anchors.grid([(4, 6), (2, 3)], (8, 16), None, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    half = 1 + torch.rand(1, priors.boxes.shape[1], 4, generator=generator) * 14
    boxes = decode_distances(priors.centers, half * priors.stride[:, None])
    distances = encode_distances(priors.centers, boxes) / priors.stride[:, None]
    if kind == "distances":
        regressed = distances + (-(-distances).expm1()).log()
    else:
        near = 1 - (distances.unsqueeze(-1) - torch.arange(17)).abs()
        regressed = near.clamp(min=1e-12).log().flatten(2)
    found, edges = stage._decode(regressed, priors)
    torch.testing.assert_close(found, boxes, rtol=1e-4, atol=1e-3)
    assert (edges is None) == (kind == "distances")


def test_edges_are_the_logits_of_the_boxes():
    output = build("gfl").eval()(images(), SIZES)[0]
    predictions, priors = output.predictions, output.priors
    assert predictions.edges.shape == (*predictions.boxes.shape, 17)
    mean = (predictions.edges.softmax(-1) * torch.arange(17)).sum(-1) * priors.stride[:, None]
    torch.testing.assert_close(decode_distances(priors.centers, mean), predictions.boxes)
    assert build("gfl", "small").spec.head.box_width == 68


def test_the_teacher_of_the_built_in_scenes_still_loads():
    asset = Path(str(files("ladle") / "assets" / "scenes_teacher.safetensors"))
    spec = read_spec(asset)
    assert (spec.head.box, spec.head.class_prior, spec.head.center_prior) == ("deltas", 0.01, False)
    assert load_detector(asset).spec == spec


def test_a_spec_from_before_the_new_fields_is_the_same_head():
    spec = detector_spec("paa-tiny", ("a",))
    values = json.loads(spec.to_json())
    for name in ("box", "bins", "class_prior", "quality_prior", "center_prior", "objectness"):
        values["head"].pop(name)
    assert DetectorSpec.from_json(json.dumps(values)).head == spec.head
    changed = replace(spec, head=replace(spec.head, box="distribution", bins=9, center_prior=True))
    assert DetectorSpec.from_json(changed.to_json()).head == changed.head
