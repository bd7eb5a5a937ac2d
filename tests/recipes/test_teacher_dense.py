"""Recorded dense predictions are those of the teacher itself, bit for bit, or are refused."""

import json
import pickle
import shlex
import shutil
from dataclasses import replace
from functools import cache as cache_of
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ladle.cli.main import main
from ladle.data.loader import make_loader
from ladle.data.scenes import CLASSES, write_coco
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec, network_info
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.recipes import Run, distill, preflight, teacher_cache, teacher_dense
from ladle.recipes.fixed_views import check_fixed_views, has_fixed_views
from ladle.recipes.jobs import Job
from ladle.recipes.parts import Parts
from ladle.recipes.sources import open_source
from ladle.teachers import FrozenDetector, MovedTeacher, open_any, open_teacher
from tests.recipes.tiny import RUN, same_weights
from tests.teachers.onnx_files import yolo

FIXED = replace(RUN, flip=0.0, jitter=0.0, crop=0.0)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Images of two sizes, so that some are padded."""
    folder = tmp_path_factory.mktemp("wide")
    write_coco(folder, train=8, val=4, size=64)
    from PIL import Image

    file = sorted((folder / "train").iterdir())[1]
    annotations = json.loads((folder / "annotations" / "instances_train.json").read_text())
    (number,) = (one["id"] for one in annotations["images"] if one["file_name"] == file.name)
    for one in annotations["images"]:
        if one["id"] == number:
            one["height"] = 32
    annotations["annotations"] = [one for one in annotations["annotations"] if one["image_id"] != number]
    Image.open(file).crop((0, 0, 64, 32)).save(file)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(annotations))
    return str(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Untrained detectors, by family; their classes are in another order than those of the data."""
    folder = tmp_path_factory.mktemp("teachers")
    for number, family in enumerate(("paa+dist", "fcos", "autoassign", "fasterrcnn")):
        torch.manual_seed(number)
        spec = detector_spec(f"{family}-tiny", (*CLASSES[::-1], "more"), imgsz=64)
        save_detector(spec.build(), folder / f"{spec.family}.safetensors")
    return {file.stem: str(file) for file in folder.iterdir()}


@pytest.fixture(scope="module")
def cache(wide, files, tmp_path_factory):
    """A recording of three files with feature maps."""
    folder = tmp_path_factory.mktemp("cache") / "paa.ladle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_dense, "_MOST_IMAGES", 3)
        return record(files["paa"], wide, folder, features=True)


@pytest.fixture(scope="module")
def plain(wide, files, tmp_path_factory):
    """A recording of one file without feature maps."""
    return record(files["fcos"], wide, tmp_path_factory.mktemp("cache") / "plain.ladle")


@pytest.fixture(scope="module")
def views(wide):
    """Two batches, one of them with the image that is padded."""
    return list(make_loader(open_source(wide, "train", Run(), 64), 4, 64, shuffle=True, square=True))


def record(text, data, folder, **more):
    return str(teacher_cache(text, data, out=str(folder), imgsz=64, batch=4, device="cpu", dense=True, **more))


def spec_of(student):
    return detector_spec(student, CLASSES, imgsz=64)


def opened(cache, student):
    return open_any(cache, CLASSES).for_student(network_info(spec_of(student)))


def live(file, student):
    frozen = FrozenDetector(load_detector(file), CLASSES)
    return frozen if student.startswith(Path(file).stem) else MovedTeacher(frozen)


@cache_of
def network_of(student):
    return spec_of(student).build()


def outputs(teacher, student, batch, class_agnostic=False):
    network = network_of(student)
    maps = network.extract_features(batch.images)
    priors = network.chain[0].propose(maps, None, None, batch.sizes)
    return teacher.predict_at(teacher.observe(batch), priors, class_agnostic=class_agnostic)


def assert_same(one, other):
    fields = ("logits", "boxes", "quality", "edges", "center_prior")
    for name in fields:
        first, second = getattr(one.predictions, name), getattr(other.predictions, name)
        assert (first is None) == (second is None), name
        assert first is None or torch.equal(first, second), name
    assert torch.equal(one.sizes, other.sizes)


@pytest.mark.parametrize("student", ["paa-tiny", "fcos-tiny"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_predictions_are_those_of_the_teacher_bit_for_bit(cache, files, views, student, class_agnostic):
    recorded = opened(cache, student)
    assert recorded.moved == (not student.startswith("paa"))
    for batch in views:
        there, here = (outputs(one, student, batch, class_agnostic) for one in (live(files["paa"], student), recorded))
        assert_same(there, here)
        for first, second in zip(there.features, here.features, strict=True):
            assert torch.equal(first, second)
            assert first.stride() == second.stride()


def test_learned_centers_are_recorded(files, wide, views, tmp_path):
    recorded = opened(record(files["autoassign"], wide, tmp_path / "a.ladle"), "autoassign-tiny")
    for batch in views:
        here, there = (
            outputs(one, "autoassign-tiny", batch) for one in (recorded, live(files["autoassign"], "autoassign"))
        )
        assert here.predictions.center_prior is not None
        assert_same(here, there)
        assert here.features == ()


def test_a_teacher_of_another_origin_is_recorded_too(wide, views, tmp_path):
    text = f"onnx:{yolo(tmp_path / 'cells.onnx', names=CLASSES[:3])}?strides=8"
    recorded, running = opened(record(text, wide, tmp_path / "o.ladle"), "fcos-tiny"), open_teacher(text, CLASSES)
    for batch in views:
        assert_same(outputs(running, "fcos-tiny", batch), outputs(recorded, "fcos-tiny", batch))


@pytest.mark.slow
def test_losses_and_gradients_are_those_with_the_teacher(cache, files, views):
    found = []
    for teacher in (live(files["paa"], "paa+dist-tiny"), opened(cache, "paa+dist-tiny")):
        torch.manual_seed(1)
        student = spec_of("paa+dist-tiny").build()
        plan = plan_for("solad+ld+pkd", student.spec, teacher.info)
        step = TrainingStep(student, plan.lessons, teacher).train()
        terms = step(views[0])
        sum(term.total for term in terms.values()).backward()
        gradients = [one.grad for one in step.parameters() if one.grad is not None]
        found.append((terms, gradients))
    (terms, gradients), (others, more) = found
    assert {name: term.total.item() for name, term in terms.items()} == {
        name: term.total.item() for name, term in others.items()
    }
    assert all(torch.equal(one, other) for one, other in zip(gradients, more, strict=True))


@pytest.mark.slow
def test_a_run_gives_the_weights_of_the_run_with_the_teacher_which_it_does_not_load(
    data, files, tmp_path, monkeypatch, capsys
):
    run = replace(FIXED, project=str(tmp_path / "runs"), quiet=False)
    beside = distill(data, "paa-tiny", files["paa"], "solad", replace(run, name="live"), allow_weak_teacher=True)
    folder = record(files["paa"], data, tmp_path / "paa.ladle")
    assert {"header.json", "000000.safetensors"} == {file.name for file in Path(folder).iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(preflight, "load_detector", None)
    alone = distill(data, "paa-tiny", folder, "solad", replace(run, name="cached"), allow_weak_teacher=True)
    assert same_weights(beside.weights, alone.weights)
    printed = " ".join(capsys.readouterr().out.split())
    assert "paa+dist-tiny, 0.0 AP on a sample of the validation images when it was recorded" in printed
    assert "gives dense predictions of 8 images" in printed
    assert Job.read(str(alone.folder)).teacher == f"dense:{folder}"


REFUSED = [
    ({"flip": 0.5, "jitter": 0.2}, {}, r"found --flip 0.5 --jitter 0.2: give --flip 0 --jitter 0"),
    ({"mosaic": 1.0}, {}, r"found --mosaic 1: give --mosaic 0"),
    ({"multiscale": 0.3}, {}, r"found --multiscale 0.3: give --multiscale 0"),
    ({"scale_jitter": 0.5, "mixup": 0.1}, {}, r"give --mixup 0 --scale-jitter 0"),
    ({"rotate": 5.0, "shear": 2.0}, {}, r"give --rotate 0 --shear 0"),
    ({"imgsz": 96}, {}, "it was recorded at 64 px, found 96 px: give --imgsz 64"),
    ({"batch": "auto"}, {}, "--batch auto tries images that are not recorded"),
    ({}, {"unlabelled": "more"}, "nothing is recorded for the images of --unlabelled more"),
    ({}, {"method": "cross"}, "cross-head distillation needs a dense head"),
]


@pytest.mark.parametrize(("run", "more", "message"), REFUSED)
def test_what_cannot_be_replayed_is_refused(cache, wide, tmp_path, run, more, message):
    run = replace(FIXED, project=str(tmp_path), **run)
    with pytest.raises(UserError, match=message):
        distill(wide, "paa-tiny", cache, **({"method": "lad"} | more), run=run, allow_weak_teacher=True)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_read_otherwise_are_refused(cache, wide):
    parts = Parts(teacher=opened(cache, "paa-tiny"))
    job, source = Job("distill", wide, "paa-tiny", run=FIXED), open_source(wide, "train", Run(), 64)
    check_fixed_views(job, parts, source, 64)
    check_fixed_views(job, parts, replace(source, cache=64), 64)
    assert has_fixed_views(parts)
    for change, message in (
        ({"cache": 48}, "--cache keeps images of up to 48 px, which changes those of up to 64 px"),
        ({"value_range": (0, 100)}, "it was recorded with --value-range .*, found 0,100"),
    ):
        with pytest.raises(UserError, match=message):
            check_fixed_views(job, parts, replace(source, **change), 64)


def test_a_resumed_run_recognizes_its_recording(cache, plain, wide, tmp_path):
    job = Job("distill", wide, "paa-tiny", "run", teacher=cache).with_teacher()
    job.check_origins()
    with pytest.raises(
        UserError, match="plain.ladle is not the file this run began with; give its path with --teacher"
    ):
        replace(job, teacher=plain).check_origins()
    with pytest.raises(UserError, match="c.ladle is not there any more"):
        replace(job, teacher=str(tmp_path / "c.ladle")).check_origins()


def test_other_images_and_weak_or_incomplete_recordings_are_refused(cache, plain, data, wide, tmp_path):
    run = replace(FIXED, project=str(tmp_path / "runs"))
    again = "recorded for other training images; record these by `ladle teacher cache .* --imgsz 64 --dense --features "
    with pytest.raises(UserError, match=f"{again}--out OTHER.ladle`"):
        distill(data, "paa-tiny", cache, "lad", run, allow_weak_teacher=True)
    with pytest.raises(UserError, match="0.0 AP on a sample of the validation images, expected at least 1"):
        distill(wide, "paa-tiny", cache, "lad", run)
    with pytest.raises(UserError, match="pkd compares feature maps, and the teacher fcos-tiny gives none"):
        distill(wide, "fcos-tiny", plain, "pkd", run, allow_weak_teacher=True)
    begun = shutil.copytree(plain, tmp_path / "begun.ladle")
    (begun / "000000.safetensors").unlink()
    with pytest.raises(UserError, match=r"it holds 0 of 1 files; finish it by `ladle teacher cache .* --dense --out"):
        distill(wide, "fcos-tiny", str(begun), "lad", run, allow_weak_teacher=True)
    with pytest.raises(UserError, match="expected a folder of `ladle teacher cache --dense`, found none"):
        distill(wide, "fcos-tiny", str(tmp_path / "none.ladle"), "lad", run)


def test_the_advised_command_finishes_a_recording(files, wide, tmp_path):
    """Whatever was recorded at whatever size, and with spaces in the names of files."""
    model = shutil.copy(files["fcos"], tmp_path / "my teacher.safetensors")
    flags = ["--data", wide, "--imgsz", "96", "--dense", "--features", "--out", str(tmp_path / "my cache.ladle")]
    assert main(["teacher", "cache", str(model), *flags]) == 0
    (tmp_path / "my cache.ladle" / "000000.safetensors").unlink()
    with pytest.raises(UserError, match="it holds 0 of 1 files; finish it by `") as refused:
        open_any(str(tmp_path / "my cache.ladle"), CLASSES)
    words = shlex.split(str(refused.value).split("`")[1].replace("DIR", shlex.quote(wide)))
    assert main(words[1:]) == 0
    assert open_any(str(tmp_path / "my cache.ladle"), CLASSES).header.imgsz == 96
    with pytest.raises(UserError, match="another imgsz.* at 96 px; give --imgsz 96 to go on, or name another"):
        teacher_cache(str(model), wide, str(tmp_path / "my cache.ladle"), imgsz=64, dense=True)


def test_an_interrupted_recording_goes_on_where_it_stopped(files, wide, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(teacher_dense, "_MOST_IMAGES", 3)
    folder, usual, written = tmp_path / "a.ladle", teacher_dense.write_images, []

    def stopped(folder, number, *rest):
        if number == 1:
            raise KeyboardInterrupt
        usual(folder, number, *rest)

    monkeypatch.setattr(teacher_dense, "write_images", stopped)
    with pytest.raises(KeyboardInterrupt):
        record(files["fcos"], wide, folder)
    monkeypatch.setattr(teacher_dense, "write_images", lambda *all: written.append(all[1]) or usual(*all))
    record(files["fcos"], wide, folder)
    assert written == [1, 2]
    assert "5 of 8 images to record into" in " ".join(capsys.readouterr().out.split())
    record(files["fcos"], wide, folder)
    assert written == [1, 2]
    whole = record(files["fcos"], wide, tmp_path / "b.ladle")
    for file in sorted(Path(whole).iterdir()):
        assert file.read_bytes() == (folder / file.name).read_bytes()
    with pytest.raises(UserError, match="it holds a recording of another teacher, of .*fcos.* at 64 px; name another"):
        record(files["paa"], wide, folder)


def test_teachers_without_dense_predictions_and_small_disks_are_refused(files, wide, tmp_path, monkeypatch):
    folder = tmp_path / "a.ladle"
    with pytest.raises(UserError, match="works in two stages, its predictions lie at proposals"):
        record(files["fasterrcnn"], wide, folder)
    with pytest.raises(UserError, match="--features: feature maps are recorded beside dense predictions only"):
        teacher_cache(files["fcos"], wide, features=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2000))
    with pytest.raises(UserError, match="32 KiB are needed and 2 KiB are free: name a folder on a larger disk"):
        record(files["fcos"], wide, folder)
    assert not folder.exists()
    assert main(["assign", "stats", "--data", wide, "--model", "fcos-tiny", "--teacher", "a.ladle"]) == 2


def changed(before, after):
    """Damage to the first place of a text in the header."""

    def damage(folder):
        text = (folder / "header.json").read_text()
        assert before in text
        (folder / "header.json").write_text(text.replace(before, after, 1))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "header.json").write_text("{}"), "expected the header of a recording"),
        (lambda folder: (folder / "000000.safetensors").write_bytes(b"no"), "000000.safetensors cannot be read"),
        (changed('"frame"', '"frames"'), "found frame of another shape than grids and classes"),
        (changed('"ring",', '"ring", "other",'), "found logits of another shape than grids and classes"),
        (changed('"images": 8', '"images": 7'), "its tensors are not those that header.json names"),
    ],
)
def test_damage_is_told(plain, tmp_path, damage, message):
    folder = Path(shutil.copytree(plain, tmp_path / "a.ladle"))
    damage(folder)
    with pytest.raises(UserError, match=message):
        open_any(str(folder), CLASSES)


def test_images_that_are_not_recorded_or_padded_otherwise_are_refused(cache, views):
    teacher, batch = opened(cache, "paa-tiny"), views[0]
    there = pickle.loads(pickle.dumps(teacher))  # as a process of another device gets it
    assert torch.equal(there.observe(batch).found.logits, teacher.observe(batch).found.logits)
    with pytest.raises(UserError, match="it holds nothing for image 'x'"):
        teacher.observe(replace(batch, ids=("x", *batch.ids[1:])))
    with pytest.raises(UserError, match="recorded for batches padded to 64 x 64 px, found 32 x 64"):
        teacher.observe(replace(batch, images=batch.images[:, :, :32]))
