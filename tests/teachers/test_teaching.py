"""Foreign teachers teach students with anchors, with points, and of two stages."""

import pytest
import torch

from ladle.data.scenes import CLASSES
from ladle.families import detector_spec
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.teachers import ForeignTeacher, TorchvisionTeacher, match_classes, open_teacher
from tests.recipes.test_conformance import loss_of, scenes
from tests.teachers.checkpoints import checkpoint
from tests.teachers.test_torchvision import built

STUDENTS = ("atss-tiny", "fcos-tiny", "fasterrcnn-tiny")


def of_torchvision(folder):
    name = "ssdlite320_mobilenet_v3_large"
    detector = TorchvisionTeacher(name, ("__background__", *CLASSES), built(name, len(CLASSES) + 1))
    return ForeignTeacher(detector, match_classes(CLASSES, CLASSES))


def of_transformers(folder):
    checkpoint(folder, "Yolos", CLASSES)
    return open_teacher(f"hf:{folder}", CLASSES)


TEACHERS = {"torchvision": of_torchvision, "transformers": of_transformers}


@pytest.fixture(scope="module", params=TEACHERS)
def teacher(request, tmp_path_factory):
    return TEACHERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def batch():
    return scenes(2)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_foreign_teacher_teaches_a_step(teacher, batch, name):
    torch.manual_seed(0)
    student = detector_spec(name, CLASSES, imgsz=96).build()
    plan = plan_for("lad+soft", student.spec, teacher.info)
    objective = TrainingStep(student, plan.lessons, teacher)
    before = [one.detach().clone() for one in teacher.detector.model.parameters()]
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    terms = objective(batch)
    assert objective.distilled == set(plan.teaches)
    assert all(float(terms[term].total.detach()) > 0 for term in plan.teaches)
    loss = loss_of(terms)
    assert loss.isfinite()
    loss.backward()
    assert all(one.grad is not None for one in student.parameters() if one.requires_grad)
    optimizer.step()
    assert all(map(torch.equal, before, teacher.detector.model.parameters()))
