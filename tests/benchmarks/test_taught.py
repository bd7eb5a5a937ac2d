"""What a student is told: a teacher of the student's own places tells all that it finds."""

from dataclasses import replace

import torch

from ladle.data.scenes import Scenes
from ladle.families import detector_spec
from ladle.recipes.scoring import Evaluator, detect
from ladle.teachers import FrozenDetector


def test_a_teacher_of_the_same_places_is_worth_its_own_ap_at_the_priors(load):
    torch.manual_seed(0)
    scenes = Scenes(4, seed=0, size=64)
    spec = detector_spec("tood-tiny", scenes.classes, imgsz=64)
    detector = replace(spec, inference=replace(spec.inference, threshold=0.001)).build().eval()  # it is not trained
    evaluator = Evaluator(scenes, 64, 2)
    found = evaluator.score(
        load("taught").told(FrozenDetector(detector, scenes.classes), detector), scenes.classes, 100
    )
    own = evaluator.score(lambda batch: detect(detector, batch), scenes.classes, 100)
    for number, one in own.detections.items():
        assert torch.equal(found.detections[number].boxes, one.boxes)
        assert torch.equal(found.detections[number].scores, one.scores)
    assert sum(len(one.scores) for one in own.detections.values()) > 0
