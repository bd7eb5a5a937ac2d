"""Teachers are matched by name and by priors, or refused in a sentence."""

import pytest
import torch

from ladle.errors import UserError
from ladle.families import detector_spec, network_info
from ladle.networks import prior_mismatches
from ladle.teachers import FrozenDetector, Teacher
from ladle.types import Batch, GroundTruth


def test_classes_are_matched_by_name_not_by_position():
    detector = detector_spec("paa-tiny", ("cat", "dog", "emu")).build().eval()
    images, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    batch = Batch(images, GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0).long()]), sizes, sizes, (0,))
    student_out = detector(images)[0]
    teacher = FrozenDetector(detector, ("emu", "cat"))
    output = teacher.predict_at(teacher.observe(batch), student_out.priors)
    assert torch.equal(output.predictions.logits, student_out.predictions.logits[..., [2, 0]])
    assert teacher.info.classes == ("emu", "cat")
    assert isinstance(teacher, Teacher)


def test_a_teacher_that_lacks_a_class_is_refused_by_name():
    detector = detector_spec("paa-tiny", ("cat",)).build()
    with pytest.raises(UserError, match="does not know 'dog'.*knows cat"):
        FrozenDetector(detector, ("cat", "dog"))


def test_priors_that_differ_are_named():
    student, teacher = (network_info(detector_spec(name, ("a",))) for name in ("paa-tiny", "retinanet-r18"))
    assert prior_mismatches(student, student) == []
    strides, priors = prior_mismatches(student, teacher)
    assert strides == "the teacher predicts at strides (8, 16, 32, 64, 128), the student at (8, 16, 32)"
    assert priors.startswith("the teacher's priors are Anchors(")
