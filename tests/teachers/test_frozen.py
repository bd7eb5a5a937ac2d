"""Teachers are matched by name and by priors, or refused in a sentence."""

import pytest
import torch

from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.teachers import FrozenDetector, differences


def test_classes_are_matched_by_name_not_by_position():
    detector = detector_spec("paa-tiny", ("cat", "dog", "emu")).build().eval()
    images = torch.rand(1, 3, 64, 64)
    own = detector(images)[0]
    said = FrozenDetector(detector, ("emu", "cat"))(images, None, [own.priors])[0]
    assert torch.equal(said.predictions.logits, own.predictions.logits[..., [2, 0]])


def test_a_teacher_that_lacks_a_class_is_refused_by_name():
    detector = detector_spec("paa-tiny", ("cat",)).build()
    with pytest.raises(UserError, match="does not know 'dog'.*knows cat"):
        FrozenDetector(detector, ("cat", "dog"))


def test_priors_that_differ_are_named():
    student, teacher = detector_spec("paa-tiny", ("a",)), detector_spec("retinanet-r18", ("a",))
    assert differences(student, student) == []
    assert [sentence.split()[2] for sentence in differences(student, teacher)] == ["predicts", "are"] or len(
        differences(student, teacher)
    ) == 2
