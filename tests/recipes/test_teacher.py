"""A foreign teacher is measured and teaches, or is refused in a sentence."""

import pickle
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from ladle import engine
from ladle.cli.main import main
from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, write_coco
from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import distill, teacher_cache, teacher_probe, val
from ladle.recipes.jobs import Job
from ladle.recipes.opened import OpenedTeacher
from ladle.recipes.origins import file_hash, named_hashes
from ladle.recipes.recorded import beside
from ladle.recipes.scoring import Evaluator
from ladle.recipes.sources import open_source
from ladle.recipes.teacher_sides import teacher_side
from ladle.teachers import FrozenDetector, open_teacher, opening, parse_uri, read_cache
from ladle.teachers.dense_file import read_header
from tests.recipes.tiny import FLAGS, RUN, make_data
from tests.teachers.onnx_files import boxes_and_scores

NAMES = (CLASSES[0], CLASSES[1].upper(), CLASSES[2])


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """A detector that takes every cell for an object whose class is its color."""
    return boxes_and_scores(tmp_path_factory.mktemp("onnx") / "colors.onnx", NAMES)


@pytest.mark.slow
def test_a_probe_prints_classes_ap_and_speed_and_draws(data, onnx, tmp_path, capsys):
    (tmp_path / "names.yaml").write_text(f"{CLASSES[3]}: {NAMES[0]}\n")
    names = str(tmp_path / "names.yaml")
    probed = teacher_probe(str(onnx), data, imgsz=64, out=str(tmp_path / "out"), class_map=names)
    assert probed.matched == dict(zip(CLASSES, [*NAMES, NAMES[0], *[None] * (len(CLASSES) - 4)], strict=True))
    assert 0 <= probed.evaluation.ap < 0.2
    assert probed.images_per_second > 0
    assert {"found.png", "results.json"} <= {file.name for file in (tmp_path / "out").iterdir()}
    printed = " ".join(capsys.readouterr().out.split())
    assert "takes 64x64 px, stretch, RGB, (value - 0) / 1" in printed
    assert f"{CLASSES[3]} {NAMES[0]} map" in printed.replace("│", " ").replace("  ", " ")
    assert f"4 of the student's {len(CLASSES)} classes are known to the teacher" in printed
    assert "images/s; drawings, plots and results.json are in" in printed


@pytest.mark.slow
def test_a_probe_of_ladle_s_own_detector_is_its_evaluation(data, teacher, tmp_path):
    probed = teacher_probe(teacher, data, imgsz=64, out=str(tmp_path))
    evaluator = Evaluator(open_source(data, "val", RUN, 64), 64, 4)
    assert probed.evaluation.per_class == evaluator(load_detector(teacher)).evaluation.per_class
    assert probed.matched == {name: name for name in CLASSES}


def test_ladle_s_weights_are_given_images_of_the_size_that_they_were_trained_at(data, teacher, tmp_path, capsys):
    """Another size is told; a teacher of another origin resizes images to its own input."""
    assert read_cache(teacher_cache(teacher, data, str(tmp_path / "own.jsonl")))[0].imgsz == 64
    assert read_header(teacher_cache(teacher, data, str(tmp_path / "own.ladle"), dense=True))[0].imgsz == 64
    assert "was trained at" not in capsys.readouterr().out
    teacher_cache(teacher, data, str(tmp_path / "other.jsonl"), imgsz=96)
    note = f"note: {teacher} was trained at 64 px and is given images of 96 px, where it may find less: --imgsz 64 is"
    assert note in capsys.readouterr().out
    sides = {
        "onnx:a.onnx": 640,
        f"ladle:{teacher}": 64,
        f"ensemble:onnx:a.onnx,{teacher}": 64,
        "ensemble:a.onnx,b.onnx": 640,
    }
    assert {text: teacher_side(parse_uri(text), None) for text in sides} == sides


@pytest.mark.slow
def test_a_probe_of_ladle_s_weights_is_what_val_gives_without_a_size(data, teacher, tmp_path):
    probed = teacher_probe(teacher, data, out=str(tmp_path / "probe"))
    assert probed.evaluation.per_class == val(data, teacher, device="cpu", out=str(tmp_path / "val")).per_class


def test_a_teacher_that_finds_nothing_is_refused(data, onnx, tmp_path, capsys):
    flags = ["--data", data, "--imgsz", "64", "--out", str(tmp_path / "out")]
    assert main(["teacher", "probe", f"{onnx}?std=1e6", *flags]) == 2
    error = capsys.readouterr().err
    assert "it finds nothing in the 4 images of val: check how it takes images" in error
    assert not (tmp_path / "out").exists()


def test_a_probe_matches_the_classes_of_ladle_s_own_detector_as_training_does(data, teacher, tmp_path, capsys):
    """By equal names alone: a spelling that training refuses is not approved."""
    write_coco(tmp_path / "upper", train=2, val=2, size=64)
    for file in (tmp_path / "upper" / "annotations").iterdir():
        file.write_text(file.read_text().replace(f'"{CLASSES[0]}"', f'"{CLASSES[0].upper()}"'))
    flags = ["--data", str(tmp_path / "upper"), "--imgsz", "64", "--out", str(tmp_path / "out")]
    assert main(["teacher", "probe", str(teacher), *flags]) == 0
    assert f"not '{CLASSES[0].upper()}'" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"the teacher does not know '{CLASSES[0].upper()}'"):
        distill(str(tmp_path / "upper"), "paa-tiny", str(teacher), "lad", replace(RUN, project=str(tmp_path)))
    (tmp_path / "upper" / "strangers.txt").touch()
    for file in (tmp_path / "upper" / "annotations").iterdir():
        for name in CLASSES[1:]:
            file.write_text(file.read_text().replace(f'"{name}"', f'"{name.upper()}"'))
    assert main(["teacher", "probe", str(teacher), *flags]) == 2
    error = capsys.readouterr().err
    assert "knows none of the student's classes" in error
    assert "class-map" not in error  # it is refused for a detector of ladle's


@pytest.fixture
def openings(monkeypatch):
    """The texts of the ONNX files that are opened."""
    texts, usual = [], opening._OPENERS["onnx"]
    monkeypatch.setitem(opening._OPENERS, "onnx", lambda uri: texts.append(uri.text) or usual(uri))
    return texts


def test_set_up_summary_and_training_open_a_foreign_teacher_once(data, onnx, tmp_path, monkeypatch, openings):
    reached = []

    def fit(fabric, objective, *rest):
        reached.append(objective.teacher)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        distill(data, "paa-tiny", str(onnx), "lad", replace(RUN, project=str(tmp_path)), allow_weak_teacher=True)
    assert openings == [str(onnx)]
    assert reached[0].info.name == onnx.name


@pytest.mark.slow
def test_a_foreign_teacher_judges_and_its_file_is_recorded(data, onnx, tmp_path, capsys, openings):
    flags = f"--student paa-tiny --method lad {FLAGS.replace('--quiet', '')} --allow-weak-teacher".split()
    assert main(["distill", "--data", data, "--teacher", f"onnx:{onnx}?pad=0", f"--project={tmp_path}", *flags]) == 0
    job = Job.read(str(tmp_path / "distill" / "paa-tiny-lad"), "distill")
    assert (job.teacher, job.teacher_sha256) == (f"onnx:{onnx}?pad=0", file_hash(onnx))
    assert openings == [job.teacher]
    job.check_origins()
    with pytest.raises(UserError, match="is not the file this run began with; give its path with --teacher"):
        replace(job, teacher_sha256="0" * 64).check_origins()
    with pytest.raises(UserError, match="is not there any more"):
        replace(job, teacher="onnx:nowhere.onnx").check_origins()
    printed = " ".join(capsys.readouterr().out.split())
    assert "gives final boxes (layout boxes)" in printed
    assert "assigner PAA, judged by the teacher" in printed


def test_files_that_name_its_classes_are_recognized(onnx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.yaml").write_text("ring: ball\n")
    Path("classes.txt").write_text("a\nb\nc\n")
    text = f"onnx:{onnx}?class_map=names.yaml&classes=classes.txt"
    job = Job("distill", "scenes", "paa-tiny", "run", teacher=text).with_teacher()
    job.write()
    read = Job.read("run")
    assert (read.teacher_named, set(read.teacher_named)) == (job.teacher_named, {"class_map", "classes"})
    read.check_origins()
    both = f"ensemble:{text},{text}"
    assert set(named_hashes(both)) == {"1/class_map", "1/classes", "2/class_map", "2/classes"}
    replace(job, teacher_named=None).check_origins()  # a run of an earlier version

    def refused(teacher, message):
        with pytest.raises(UserError, match=f"^--resume run: {message}, or start a new run$"):
            replace(read, teacher=teacher).check_origins()

    Path("other.yaml").write_text("ring: cube\n")
    mend = r"put it back from a copy, give its path by \?class_map= in --teacher"
    named = r"the classes of the teacher were named by {} \(\?class_map=\), which is {}: "
    refused(text.replace("names", "other"), named.format("other.yaml", "changed") + mend)
    Path("names.yaml").write_text("ring: cube\n")
    refused(text, named.format("names.yaml", "changed") + mend)
    Path("names.yaml").unlink()
    refused(text, named.format("names.yaml", "not there any more") + mend)
    refused(f"onnx:{onnx}?classes=classes.txt", named.format("a file", "missing from --teacher") + mend)
    with pytest.raises(UserError, match=r"\?class_map=other.yaml of the teacher was not given when this run began"):
        replace(read, teacher_named={}, teacher=f"onnx:{onnx}?class_map=other.yaml").check_origins()


def test_a_shared_teacher_is_opened_again_in_another_process_and_draws_no_numbers(onnx, openings):
    shared = OpenedTeacher(str(onnx), detector_spec("paa-tiny", CLASSES))
    assert openings == []
    torch.manual_seed(0)
    expected, _ = torch.rand(1), torch.manual_seed(0)
    assert shared() is shared()
    assert torch.rand(1) == expected
    there = pickle.loads(pickle.dumps(shared))
    assert there().table == shared().table
    assert openings == [str(onnx)] * 2
    shared.close()
    shared()
    assert len(openings) == 3


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("pkd", "--method pkd: pkd compares feature maps, and the teacher colors.onnx gives none; take lad, soft"),
        ("cross", "--method cross: cross-head distillation needs a dense head"),
        ("soft", f"it does not know {', '.join(map(repr, CLASSES[3:]))}, so its scores would teach that there is none"),
    ],
)
def test_methods_that_it_cannot_teach_are_refused(data, onnx, tmp_path, method, named):
    with pytest.raises(UserError, match=named):
        distill(data, "paa-tiny", str(onnx), method, replace(RUN, project=str(tmp_path)), allow_weak_teacher=True)
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_classes_reaches_the_teacher_or_is_refused(data, onnx, teacher, tmp_path):
    run, map_file = replace(RUN, project=str(tmp_path / "runs")), tmp_path / "names.yaml"
    map_file.write_text("lorry: truck\n")
    for given, named in (
        (str(onnx), "class_map names the student's 'lorry', which does not exist"),
        (teacher, "are matched by name; expected a single teacher of another origin"),
        (None, "expected a --teacher such as onnx:file.onnx, found none"),
        (FrozenDetector(load_detector(teacher), CLASSES), "found one that is given in Python"),
    ):
        with pytest.raises(UserError, match=named):
            distill(data, "paa-tiny", given, "lad", run, class_map=str(map_file))


@pytest.mark.slow
def test_a_model_of_timm_teaches_by_its_features_and_cannot_be_measured(data, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    text = f"timm:test_resnet?weights={tmp_path / 'weights.pth'}"
    run = replace(RUN, project=str(tmp_path / "runs"), quiet=False)
    taught = distill(data, "paa-tiny", text, "pkd", run)
    job = Job.read(str(taught.weights.parents[1]), "distill")
    assert (job.teacher, job.teacher_sha256) == (text, file_hash(tmp_path / "weights.pth"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "test_resnet, not evaluated: it gives feature maps only" in printed
    assert "gives feature maps of strides 8, 16, 32" in printed
    assert "pkd: correlation of channels, maps of stride 8, 16, 32" in printed
    with pytest.raises(UserError, match="it gives feature maps only; expected a detector"):
        teacher_probe(text, data, imgsz=64, out=str(tmp_path / "out"))
    with pytest.raises(UserError, match="it gives feature maps only; expected a detector"):
        teacher_cache(text, data, imgsz=64, out=str(tmp_path / "cache.jsonl"))


def test_localization_needs_distributions(data, onnx, tmp_path):
    with pytest.raises(UserError, match="the teacher says none"):
        distill(data, "gfl-tiny", str(onnx), "ld", replace(RUN, project=str(tmp_path)))


def test_assistants_need_a_teacher_of_ladle_s(data, onnx, tmp_path):
    with pytest.raises(UserError, match="expected a teacher saved by ladle"):
        distill(data, "paa-tiny", str(onnx), "lad", replace(RUN, project=str(tmp_path)), assistants="mini")


@pytest.fixture(scope="module")
def cache(data, teacher, tmp_path_factory):
    """What Ladle's own tiny detector finds in all images."""
    return teacher_cache(teacher, data, str(tmp_path_factory.mktemp("cache") / "tiny.jsonl"), imgsz=64)


def test_a_cache_holds_every_image_and_teaches_like_the_teacher_itself_bit_for_bit(data, teacher, cache):
    _, images = read_cache(cache)
    assert {split: len(found) for split, found in images.items()} == {"train": 8, "val": 4}
    source = open_source(data, "val", RUN, 64)
    live, cached = (open_teacher(f"{kind}:{one}", CLASSES) for kind, one in (("ladle", teacher), ("cache", cache)))
    batch = collate([beside(source, cached, "").sample(index) for index in range(4)])
    (found, _), (wanted, _) = cached.observe(batch), live.observe(batch)
    assert wanted.boxes.shape[1] > 100
    assert torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.logits, wanted.logits)


def test_results_of_val_teach_the_detections_of_the_detector(data, teacher, tmp_path):
    """Up to the rounding of corners, since COCO's boxes have a width and a height, and of scores."""
    val(data, teacher, imgsz=64, device="cpu", out=str(tmp_path))
    source, detector = open_source(data, "val", RUN, 64), load_detector(teacher).eval()
    recorded = open_teacher(str(tmp_path / "results.json"), CLASSES, source.category_ids)
    batch = collate([beside(source, recorded, "").sample(index) for index in range(4)])
    found, _ = recorded.observe(batch)
    for boxes, logits, one in zip(found.boxes, found.logits, detector.detect(batch), strict=True):
        count = len(one.scores)
        assert count > 50
        assert torch.allclose(boxes[:count], one.boxes, atol=64 * 2**-22)
        assert torch.equal(logits[:count].argmax(-1), one.labels)
        assert torch.allclose(logits[:count].sigmoid().amax(-1), one.scores, atol=2**-22)
        assert not boxes[count:].any()


def test_an_interrupted_cache_goes_on_and_one_of_another_teacher_is_refused(
    data, teacher, onnx, cache, tmp_path, capsys
):
    whole = cache.read_text()
    file = tmp_path / "part.jsonl"
    file.write_text("".join(whole.splitlines(keepends=True)[:6]) + '{"id": 7, "box')
    teacher_cache(teacher, data, str(file), imgsz=64)
    (header, found), (wanted_header, wanted) = (read_cache(one) for one in (file, cache))
    assert header == wanted_header
    for split, images in wanted.items():
        assert images.keys() == found[split].keys()
        assert all(torch.allclose(one.scores, found[split][name].scores, atol=1e-3) for name, one in images.items())
    assert "7 images to record into" in capsys.readouterr().out
    with pytest.raises(UserError, match="it holds a cache of another teacher"):
        teacher_cache(str(onnx), data, str(file), imgsz=64)
    with pytest.raises(UserError, match="it holds a cache of another imgsz.* at 64 px; give --imgsz 64 to go on, or"):
        teacher_cache(teacher, data, str(file), imgsz=96)


def test_the_advised_command_finishes_a_cache(data, teacher, tmp_path):
    """Whatever its size of images is, and with spaces in the names of files."""
    model, file = tmp_path / "my teacher.safetensors", tmp_path / "my cache.jsonl"
    shutil.copy(teacher, model)
    teacher_cache(str(model), data, str(file), imgsz=96)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(UserError, match="holds 4 of the 8 images; finish it by `") as refused:
        distill(data, "paa-tiny", f"cache:{file}", "lad", replace(RUN, project=str(tmp_path)))
    words = shlex.split(str(refused.value).split("`")[1].replace("DIR", shlex.quote(data)))
    assert main(words[1:]) == 0
    assert {split: len(found) for split, found in read_cache(file)[1].items()} == {"train": 8, "val": 4}


def test_a_cache_has_the_suffix_by_which_it_is_known_and_tells_of_the_classes(data, onnx, tmp_path, capsys):
    for dense, suffix in ((False, ".jsonl"), (True, ".ladle")):
        with pytest.raises(UserError, match=f"out.txt: expected a name that ends with {suffix}"):
            teacher_cache(str(onnx), data, str(tmp_path / "out.txt"), imgsz=64, dense=dense)
    assert list(tmp_path.iterdir()) == []
    write_coco(tmp_path / "other", train=1, val=1, size=64)
    for file in (tmp_path / "other" / "annotations").iterdir():
        text = file.read_text()
        for name in CLASSES:
            text = text.replace(f'"{name}"', f'"no {name}"')
        file.write_text(text)
    for folder, told in (
        (data, "3 of the student's 6 classes are known"),
        (tmp_path / "other", "note: colors.onnx knows none"),
        (tmp_path / "other", "name the pairs in a file by --class-map names.yaml of `ladle distill`, or"),
    ):
        (tmp_path / "cache.jsonl").unlink(missing_ok=True)
        teacher_cache(str(onnx), str(folder), str(tmp_path / "cache.jsonl"), imgsz=64)
        assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_cache_trains_without_its_teacher(data, cache, tmp_path, capsys):
    run = replace(RUN, project=str(tmp_path), quiet=False)
    taught = distill(data, "fcos-tiny", str(cache), "solad", run, allow_weak_teacher=True)
    assert taught.weights.is_file()
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 of 8 training images have recorded predictions" in printed
    assert "AP on a sample of the training images" in printed


def test_a_cache_of_other_data_and_predictions_for_other_images_are_refused(data, cache, tmp_path):
    other = make_data(tmp_path / "other")
    write_coco(tmp_path / "more", train=9, val=4, size=64)
    run = replace(RUN, project=str(tmp_path / "runs"))
    with pytest.raises(
        UserError, match="this cache was made from other data.*--data DIR --imgsz 64 --out OTHER.jsonl`"
    ):
        distill(str(tmp_path / "more"), "paa-tiny", str(cache), "lad", run, allow_weak_teacher=True)
    file = tmp_path / "predictions.json"
    file.write_text('[{"file_name": "x.jpg", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]')
    with pytest.raises(UserError, match="its predictions are for other images, such as 'x.jpg': none of the 8 images"):
        distill(other, "paa-tiny", str(file), "lad", run, allow_weak_teacher=True)
