"""``--batch auto`` and ``--val-batch``: the number is chosen once, told, and kept for a resume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ladle.cli.main import main
from ladle.data.loader import view
from ladle.data.samples import Sample
from ladle.errors import UserError
from ladle.recipes import batch_size, train, training
from ladle.recipes.batch_size import crowded_batch
from ladle.recipes.jobs import Job
from ladle.recipes.parts import Parts
from ladle.recipes.setup import resolve
from tests.recipes.tiny import RUN

AUTO = replace(RUN, batch="auto", quiet=False)


class StoppedError(Exception):
    """Raised instead of the training."""


@pytest.fixture
def lent(monkeypatch):
    """A device with memory for five images, on the CPU; nothing is trained."""

    def fits(work, device):
        work()
        return work.args[-1] <= 5

    def stop(fabric, ready, scores):
        assert ready.job.run.batch == yaml.safe_load((Path(ready.job.folder) / "config.yaml").read_text())["batch"]
        raise StoppedError(ready.job.run.batch, ready.evaluator().loader._plan.batch)

    monkeypatch.setattr(batch_size, "has_memory", lambda device: True)
    monkeypatch.setattr("ladle.engine.batch_size.fits_memory", fits)
    monkeypatch.setattr(training, "_work", stop)


@pytest.mark.slow
def test_the_number_that_fits_is_told_and_kept(lent, data, tmp_path, capsys):
    with pytest.raises(StoppedError) as stopped:
        train(data, "paa-tiny", replace(AUTO, project=str(tmp_path)))
    assert stopped.value.args[0] == 4
    told = " ".join(capsys.readouterr().out.split())
    assert "--batch auto: 4 images for each step and device, found by steps on images of 64 x 64 pixels" in told


def test_a_device_without_room_for_one_image_is_a_mistake(lent, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ladle.engine.batch_size.fits_memory", lambda work, device: False)
    with pytest.raises(UserError, match="--batch auto: a step on one image of 64 pixels needs more memory"):
        train(data, "paa-tiny", replace(AUTO, project=str(tmp_path)))
    assert not any(tmp_path.iterdir())


def test_a_cpu_takes_the_usual_number_and_says_why(lent, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(batch_size, "has_memory", lambda device: False)
    with pytest.raises(StoppedError) as stopped:
        train(data, "paa-tiny", replace(AUTO, project=str(tmp_path)))
    assert stopped.value.args == (16, 16)
    assert "--batch auto: 16 images for each step and device, the usual number, because on a CPU" in " ".join(
        capsys.readouterr().out.split()
    )


def test_evaluation_has_a_batch_of_its_own(lent, data, tmp_path):
    with pytest.raises(StoppedError) as stopped:
        train(data, "paa-tiny", replace(RUN, val_batch=3, project=str(tmp_path)))
    assert stopped.value.args == (4, 3)


def test_a_gpu_evaluates_twice_as_many(lent, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ladle.recipes.prepared.find_device", lambda device: "cuda")
    monkeypatch.setattr(training, "_loader", lambda *_, **__: None)
    monkeypatch.setattr("ladle.recipes.scoring.make_loader", lambda source, batch, *_, pin, **__: pin * batch)
    monkeypatch.setattr(training, "_work", lambda fabric, ready, scores: stop_with(ready.evaluator().loader))
    with pytest.raises(StoppedError) as stopped:
        train(data, "paa-tiny", replace(RUN, project=str(tmp_path)))
    assert stopped.value.args == (8,)


def stop_with(value):
    raise StoppedError(value)


def test_other_words_are_refused(capsys):
    assert main(["train", "--data", "scenes", "--batch", "automatic"]) == 2
    expected = "ladle train: --batch takes a whole number from 1 to 4096 or auto, found automatic\n"
    assert capsys.readouterr().err == expected


def test_a_run_of_an_earlier_version_is_read(tmp_path):
    job = Job("train", "scenes", "paa-tiny", str(tmp_path), RUN)
    job.write()
    file = tmp_path / "config.yaml"
    flags = yaml.safe_load(file.read_text())
    for name in ("val_batch", "compile", "channels_last"):
        del flags[name]
    file.write_text(yaml.safe_dump(flags))
    assert Job.read(str(tmp_path), "train") == job


def test_the_batch_of_a_trial_is_full():
    batch = crowded_batch(64, 20, 3, count=2)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.truth.boxes.shape == (2, 32, 4)
    assert batch.truth.valid.sum(1).tolist() == [20, 20]
    assert batch.truth.labels.amax() == 2
    assert ((batch.truth.boxes >= 0) & (batch.truth.boxes <= 64)).all()
    assert torch.equal(batch.sizes, torch.full((2, 2), 64))


class Full:
    """Images of as many objects as are assumed where they are not counted, all in the middle, where no crop is."""

    classes, category_ids = ("cat", "dog"), (1, 2)

    def __len__(self):
        return 3

    def sample(self, index):
        corners = 28 + 4 * torch.rand(batch_size._USUAL_OBJECTS, 2, generator=torch.Generator().manual_seed(index))
        nothing = torch.zeros(len(corners), dtype=torch.long)
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        return Sample(image, torch.cat([corners, corners + 8], 1), nothing, nothing.bool(), index, (64, 64))


@pytest.fixture
def objects_of(monkeypatch):
    """The number of objects of each image in the trial steps of a job, which are not taken."""
    counts = []

    def count(job, setup, parts, batch_of, most):
        counts.append(batch_of(1).truth.valid.sum().item())
        return 1

    def counted(job, images):
        batch_size.choose_batch(job, resolve(job, Parts(), images.classes, images.category_ids), Parts(), images)
        return counts.pop()

    monkeypatch.setattr(batch_size, "has_memory", lambda device: True)
    monkeypatch.setattr(batch_size, "_largest", count)
    return counted


@pytest.mark.parametrize("rates", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_trial_steps_have_the_objects_of_the_fullest_view(rates, objects_of):
    run = replace(RUN, batch="auto", crop=0.0, mosaic=rates[0], mixup=rates[1])
    full, generator = Full(), torch.Generator().manual_seed(0)
    views = [view(full, index % 3, 64, run.augmentation, generator) for index in range(30)]
    told = objects_of(Job("train", "d", "paa-tiny", "folder", run), full)
    assert told == max(len(one.labels) for one in views)


def test_trial_steps_have_as_many_objects_as_a_teacher_finds_in_an_image(objects_of):
    job = Job("distill", "d", "paa-tiny", "folder", replace(RUN, batch="auto", mixup=0.5), unlabelled="more")
    assert objects_of(job, Full()) == 2 * 300


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_a_setting(channels_last, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        training, "_work", lambda fabric, ready, scores: stop_with(training._objective(fabric, ready).student.neck)
    )
    with pytest.raises(StoppedError) as stopped:
        train(data, "paa-tiny", replace(RUN, channels_last=channels_last, project=str(tmp_path)))
    weight = next(p for p in stopped.value.args[0].parameters() if p.ndim == 4 and p.shape[-1] == 3)
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert weight.is_contiguous() != channels_last
