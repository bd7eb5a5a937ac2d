import math

import torch

from ladle.engine.ema import Ema

from .toy import Student


def moved(student):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
        student.backbone[1].running_mean.add_(2)
        student.backbone[1].num_batches_tracked.add_(1)


def test_the_average_follows_the_ramped_decay():
    student = Student()
    ema = Ema(student, decay=0.9, tau=5.0)
    expected = student.head.weight.detach().clone()
    for update in range(1, 4):
        moved(student)
        ema.update(student)
        decay = 0.9 * (1 - math.exp(-update / 5))
        expected = decay * expected + (1 - decay) * student.head.weight.detach()
    torch.testing.assert_close(ema.module.head.weight.detach(), expected)


def test_buffers_are_copied():
    student = Student()
    ema = Ema(student, decay=0.9, tau=5.0)
    moved(student)
    ema.update(student)
    assert all(map(torch.equal, ema.module.buffers(), student.buffers()))


def test_the_student_is_left_alone_and_the_average_has_no_gradient():
    student = Student().train()
    ema = Ema(student, decay=0.9, tau=5.0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ema.update(student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not ema.module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())


def test_a_restored_average_goes_on_as_if_it_had_never_stopped():
    student = Student()
    whole, early = Ema(student, decay=0.9, tau=5.0), Ema(student, decay=0.9, tau=5.0)
    moved(student)
    whole.update(student)
    early.update(student)
    late = Ema(Student(), decay=0.9, tau=5.0)
    late.load_state_dict(early.state_dict())
    moved(student)
    whole.update(student)
    late.update(student)
    assert all(map(torch.equal, whole.module.state_dict().values(), late.module.state_dict().values()))
