"""A detector with a one-to-one head: what it detects, what it costs, and its file, all without suppression."""

from dataclasses import replace

import onnx
import pytest
import torch

from ladle.detectors import Inference, load_detector, save_detector
from ladle.exporting import SCRIPT, Exportable, OnnxDetector, Plan, network_cost, planned_cost
from ladle.exporting.adapter import reference_output
from ladle.exporting.parity import check_parity
from ladle.recipes import export
from ladle.types import Output, Predictions, Priors
from tests.exporting.small import SIDE, batch_of, needs_onnx, small_detector

PLAN = Plan(side=SIDE)


@pytest.fixture(scope="module")
def dual():
    """A detector whose two heads predict differently."""
    detector = small_detector("tood+o2o-tiny")
    detector.one_to_one.load_state_dict(small_detector("tood-tiny", seed=5).stages[0].state_dict())
    return detector


@pytest.fixture(scope="module")
def alone(dual):
    """A plain detector with the layers of the other one and its one-to-one head."""
    detector = small_detector("tood-tiny")
    state = {name: value for name, value in dual.state_dict().items() if not name.startswith("stages.")}
    detector.load_state_dict({name.replace("one_to_one.", "stages.0."): value for name, value in state.items()})
    detector.spec = replace(detector.spec, inference=replace(detector.spec.inference, nms=None))
    return detector


def test_only_the_one_to_one_head_detects(dual, alone):
    batch = batch_of(2)
    assert dual.spec.inference == alone.spec.inference
    for found, expected in zip(dual.detect(batch), alone.detect(batch), strict=True):
        assert len(found.scores) == 100
        assert torch.equal(found.boxes, expected.boxes)
        assert torch.equal(found.labels, expected.labels)
    scores = reference_output(dual, batch.images, batch.sizes).scores
    assert torch.equal(scores, reference_output(alone, batch.images, batch.sizes).scores)


def test_without_suppression_the_highest_scores_stay_however_much_they_overlap():
    boxes = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 20, 20], [30, 30, 50, 50], [0, 0, 20, 21]]])
    logits = torch.tensor([[[2.0, -9.0], [3.0, 1.0], [-9.0, -9.0], [0.0, -9.0]]])
    priors = Priors(boxes, torch.full((4,), 8.0), torch.zeros(4, dtype=torch.long), torch.ones(1, 4).bool(), (4,))
    sizes = torch.tensor([[64, 64]])
    output = Output(Predictions(logits, boxes), priors, (), sizes)
    (found,) = Inference(nms=None, keep=3).find(output, sizes, sizes)
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    assert found.labels.tolist() == [0, 0, 1]
    assert found.boxes.tolist() == [[0, 0, 20, 20]] * 3
    (one,) = Inference(nms=0.6, keep=3).find(output, sizes, sizes)
    assert one.labels.tolist() == [0, 1]


def test_what_is_exported_is_what_is_detected(dual):
    batch = batch_of(3)
    parity = check_parity(dual, PLAN, lambda images, sizes: Exportable(dual, PLAN)(images, sizes), [batch])
    assert parity.detections == 300
    assert parity.boxes <= 1e-4


def test_it_costs_what_the_plain_detector_costs(dual, alone):
    assert network_cost(dual, SIDE) == network_cost(alone, SIDE)
    assert planned_cost(dual.spec) == network_cost(dual, SIDE)


def test_both_heads_are_saved(dual, tmp_path):
    save_detector(dual, tmp_path / "dual.safetensors")
    again = load_detector(tmp_path / "dual.safetensors")
    assert again.spec == dual.spec
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in dual.state_dict().items())


def test_the_program_beside_a_file_keeps_overlapping_boxes_of_such_a_file(alone):
    batch = batch_of(1)
    program = {"__name__": "infer"}
    exec(SCRIPT, program)
    about = {"priors_per_location": 1, "strides": alone.spec.strides, "candidates": 1000, "score_threshold": 0.05}
    about |= {"least_side": 0, "voting": False, "iou_threshold": None, "keep": 100}
    with torch.no_grad():
        raw = reference_output(alone, batch.images, batch.sizes)
    boxes, scores, labels = program["suppress"](raw.boxes[0].numpy(), raw.scores[0].numpy(), (SIDE, SIDE), about)
    (expected,) = alone.detect(batch)
    assert len(scores) == 100
    torch.testing.assert_close(torch.from_numpy(scores), expected.scores)
    torch.testing.assert_close(torch.from_numpy(boxes), expected.boxes)
    assert labels.tolist() == expected.labels.tolist()


@pytest.mark.slow
@needs_onnx
def test_its_file_has_no_suppression_and_only_one_head(dual, tmp_path):
    model = tmp_path / "dual.safetensors"
    save_detector(dual, model)
    made = export(str(model))
    graph = onnx.load(made.file).graph
    assert "NonMaxSuppression" not in {node.op_type for node in graph.node}
    stored = sum(onnx.numpy_helper.to_array(weight).size for weight in graph.initializer)
    assert stored < 1.05 * network_cost(dual, SIDE).parameters
    batch = batch_of(2)
    for found, expected in zip(OnnxDetector(made.file).detect(batch), dual.detect(batch), strict=True):
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-3)
        assert torch.equal(found.labels, expected.labels)
