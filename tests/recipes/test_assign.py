"""``ladle assign``: what it counts is what the assigner decides, and its pages stand alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ladle.assigners import ATSS, PAA, TaskAligned
from ladle.boxes import centers
from ladle.data.loader import collate, make_loader
from ladle.data.scenes import CLASSES, write_coco
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec, lessons_of
from ladle.recipes import Run, assign_diff, assign_show, assign_stats, assigning
from ladle.recipes.assign_reports import counted
from ladle.recipes.assign_tables import overview_rows
from ladle.recipes.assigning import Options, Wanted, open_context
from ladle.recipes.gallery import cut_out
from ladle.recipes.sources import open_source
from ladle.statistics import compare
from ladle.teachers import ForeignTeacher, FrozenDetector, MovedTeacher, TeacherDetections, match_classes
from tests.visual.test_html import read

QUIET = {"device": "cpu", "imgsz": 64}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """Files of detectors with other weights, other classes and other priors."""
    folder = tmp_path_factory.mktemp("detectors")
    made = {
        "first": detector_spec("paa-tiny", CLASSES, imgsz=64),
        "second": detector_spec("paa-tiny", (*CLASSES[::-1], "more"), imgsz=64),
        "points": detector_spec("fcos-tiny", CLASSES, imgsz=64),
        "strangers": detector_spec("paa-tiny", ("cat", "dog"), imgsz=64),
        "staged": detector_spec("fasterrcnn-tiny", CLASSES, imgsz=64),
    }
    for number, (name, spec) in enumerate(made.items()):
        torch.manual_seed(number)
        save_detector(spec.build(), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in made}


def counted_on(data, model, assigner=None, teacher=None, images=None, batch=8, seed=0):
    """The numbers of ``assign stats`` without its tables, charts and files."""
    context = open_context(Options(data, model, "train", images, 64, batch, 0, "cpu", seed))
    (numbers,) = counted(context, [context.side(Wanted(assigner, teacher))])
    return numbers


def batches(data, split="train"):
    return make_loader(open_source(data, split, Run(), 64), 8, 64)


@torch.no_grad()
def outputs(file, data, order=None):
    """Batches with what a detector's first stage predicts, its classes put in order."""
    detector = load_detector(file).eval()
    for batch in batches(data):
        output = detector(batch.images, batch.sizes)[0]
        predictions = output.predictions
        if order is not None:
            predictions = replace(predictions, logits=predictions.logits[..., order])
        yield batch, output.priors, predictions


def expected(data, file, rule, order=None):
    """Objects, those without a positive, and pairs, straight from the assigner."""
    objects = without = pairs = 0
    for batch, priors, predictions in outputs(file, data, order):
        learns = rule(predictions, priors, batch.truth).dense(batch.truth.labels.shape[1]) > 0
        counts = learns.sum(1)[batch.truth.learnable]
        objects, without, pairs = objects + len(counts), without + int((counts == 0).sum()), pairs + int(counts.sum())
    return objects, without, pairs


def test_stats_count_what_the_detector_assigns_itself(data, detectors):
    numbers = counted_on(data, detectors["first"])
    objects, without, pairs = expected(data, detectors["first"], PAA())
    assert (numbers.images, numbers.objects, numbers.without) == (8, objects, without)
    assert numbers.total("positive") == pairs
    assert numbers.mean_positives == pytest.approx(pairs / objects)


def test_the_mean_distances_of_a_data_set_are_those_of_all_pairs(data, detectors):
    numbers, across, down = counted_on(data, detectors["first"], batch=3), [], []
    for batch, priors, _ in outputs(detectors["first"], data):
        for row, boxes in enumerate(batch.truth.boxes):
            objects, anchors = boxes[batch.truth.learnable[row]], priors.boxes[0, priors.valid.expand(8, -1)[row]]
            both = objects.unsqueeze(1).double(), anchors.unsqueeze(0).double()
            middles, sides = (
                [part(one) for one in both] for part in (centers, lambda box: box[..., 2:] - box[..., :2])
            )
            apart = torch.sub(*middles).abs() / (sides[0] + sides[1])
            across, down = [*across, apart[..., 0].flatten()], [*down, apart[..., 1].flatten()]
    assert numbers.distances == pytest.approx([torch.cat(across).mean().item(), torch.cat(down).mean().item()])
    (row,) = (one for one in overview_rows(numbers) if one["number"] == "distance of priors from objects")
    assert row["value"].endswith(f": SimD(m={numbers.distances[0]:.3f}, n={numbers.distances[1]:.3f})")


def test_fields_alone_are_those_of_the_own_assigner(data, detectors):
    numbers = counted_on(data, detectors["first"], assigner="(topk=3)")
    assert numbers.total("positive") == counted_on(data, detectors["first"], assigner="PAA(topk=3)").total("positive")
    assert numbers.total("positive") != counted_on(data, detectors["first"]).total("positive")


def test_classes_are_matched_by_name(data, detectors):
    order = [CLASSES[::-1].index(name) for name in CLASSES]
    numbers = counted_on(data, detectors["second"])
    assert numbers.total("positive") == expected(data, detectors["second"], PAA(), order)[2]


def test_a_name_alone_is_an_untrained_detector_of_the_seed(data, capsys):
    torch.manual_seed(3)
    save_detector(detector_spec("paa-tiny", CLASSES, imgsz=64).build(), "fresh.safetensors")
    numbers = counted_on(data, "paa-tiny", seed=3)
    assert "paa-tiny is untrained, its weights are those of --seed 3" in capsys.readouterr().out
    assert numbers.total("positive") == expected(data, "fresh.safetensors", PAA())[2]


def test_a_teacher_judges_overlaps_as_in_training(data, detectors):
    rule = ATSS().judged_by_teacher(True, 0.0, False)
    numbers = counted_on(data, "paa-tiny", "ATSS", teacher=detectors["first"])
    assert numbers.total("positive") == expected(data, detectors["first"], rule)[2]


def test_a_teacher_with_other_priors_is_moved(data, detectors, capsys):
    numbers = counted_on(data, detectors["first"], teacher=detectors["points"])
    teacher, pairs = MovedTeacher(FrozenDetector(load_detector(detectors["points"]), CLASSES)), 0
    for batch, priors, _ in outputs(detectors["first"], data):
        predictions = teacher.predict_at(teacher.observe(batch), priors).predictions
        pairs += int(PAA()(predictions, priors, batch.truth).positive.sum())
    assert numbers.total("positive") == pairs
    assert f"{detectors['points']}: its predictions are moved to the student's priors" in capsys.readouterr().out


def test_a_detector_of_any_origin_judges(data, detectors, monkeypatch):
    class Square:
        name, classes, about, bins = "square", CLASSES[::-1], (), 0

        def to(self, device):
            return self

        def find(self, batch):
            boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).expand(len(batch.images), 1, 4)
            return TeacherDetections.final(boxes, torch.full((len(boxes), 1, len(CLASSES)), 0.5))

    def opened(text, classes, category_ids):
        assert (text, tuple(classes)) == ("onnx:square.onnx", CLASSES)
        return ForeignTeacher(Square(), match_classes(Square.classes, classes))

    monkeypatch.setattr(assigning, "open_teacher", opened)
    numbers = counted_on(data, detectors["first"], "TaskAligned", teacher="onnx:square.onnx")
    teacher, pairs = opened("onnx:square.onnx", CLASSES, None), 0
    for batch, priors, _ in outputs(detectors["first"], data):
        predictions = teacher.predict_at(teacher.observe(batch), priors).predictions
        pairs += int(TaskAligned()(predictions, priors, batch.truth).positive.sum())
    assert numbers.total("positive") == pairs > 0


def test_sampled_images_are_the_same_for_a_seed_and_told(data, capsys):
    one, other = (counted_on(data, "atss-tiny", images=3, batch=size) for size in (1, 3))
    assert one == other
    assert one.images == 3
    assert "3 of the 8 images of train, drawn with --seed 0" in capsys.readouterr().out


@pytest.mark.slow
def test_stats_are_written_as_json_chart_and_page(data):
    numbers = assign_stats(data, "fcos-tiny", out="out", **QUIET)
    written = json.loads(Path("out/stats.json").read_text(encoding="utf-8"))
    assert written["statistics"]["without"] == numbers.without
    assert written["statistics"]["by_size"][0]["objects"] == numbers.by_size[0].objects
    assert (written["model"], written["images"], written["imgsz"]) == ("fcos-tiny", 8, 64)
    assert written["advice"]
    found = read(Path("out/stats.html"))
    assert set(written["advice"]) <= set(found.texts)
    (image,) = [attrs for tag, attrs in found.tags if tag == "img"]
    assert image["src"].startswith("data:image/png;base64,")


def test_the_proposal_network_of_two_stages_is_counted_and_told(data, detectors, capsys):
    numbers = counted_on(data, detectors["staged"])
    assert "works in two stages: this is its proposal network, before it samples" in capsys.readouterr().out
    rule = lessons_of(detector_spec("fasterrcnn-tiny", CLASSES))[0].assigner
    assert numbers.total("positive") == expected(data, detectors["staged"], rule)[2]
    assert {group.name for group in numbers.by_class} <= set(CLASSES)
    assert len(numbers.by_class) > 1


@pytest.mark.slow
def test_the_worst_objects_are_shown_first(data, capsys):
    shown = assign_show(data, "atss-tiny", most=3, out="out", **QUIET)
    assert (shown.drawn, shown.images) == (3, 8)
    assert "3 of the 8 images with objects are drawn (--most)" in capsys.readouterr().out
    found = read(shown.pages[0])
    assert [tag for tag, _ in found.tags].count("img") == 3
    least = []
    for batch, priors, predictions in outputs_of("atss-tiny", data):
        counts = ATSS()(predictions, priors, batch.truth).dense(batch.truth.labels.shape[1]).gt(0).sum(1)
        least += [int(row[real].min()) for row, real in zip(counts, batch.truth.learnable)]
    captions = [text for text in found.texts if "without a positive; " in text]
    assert [int(text.split(" objects, ")[1].split()[0]) > 0 for text in captions] == [n == 0 for n in sorted(least)[:3]]


@torch.no_grad()
def outputs_of(name, data):
    detector = detector_spec(name, CLASSES, imgsz=64).build().eval()
    for batch in batches(data):
        output = detector(batch.images, batch.sizes)[0]
        yield batch, output.priors, output.predictions


@pytest.mark.slow
def test_pages_link_to_each_other_and_old_ones_go(data, monkeypatch):
    monkeypatch.setattr("ladle.recipes.gallery._ON_A_PAGE", 1)
    shown = assign_show(data, "atss-tiny", most=3, out="out", **QUIET)
    assert [page.name for page in shown.pages] == ["show.html", "show-2.html", "show-3.html"]
    assert [attrs["href"] for tag, attrs in read(shown.pages[1]).tags if tag == "a"] == ["show.html", "show-3.html"] * 2
    assign_show(data, "atss-tiny", most=1, out="out", **QUIET)
    assert [page.name for page in sorted(Path("out").iterdir())] == ["show.html"]


@pytest.mark.slow
def test_the_difference_is_that_of_both_judges(data, detectors):
    found = assign_diff(data, detectors["first"], against_teacher=detectors["second"], most=2, out="out", **QUIET)
    order = [CLASSES[::-1].index(name) for name in CLASSES]
    shared = either = 0
    sides = zip(outputs(detectors["first"], data), outputs(detectors["second"], data, order))
    for (batch, priors, own), (_, _, other) in sides:
        rows = compare(PAA()(own, priors, batch.truth), PAA()(other, priors, batch.truth), batch.truth)
        shared, either = shared + int(rows.shared.sum()), either + int(rows.either.sum())
    assert found.agreement == shared / either < 1
    again = assign_diff(data, detectors["first"], against_model=detectors["second"], most=1, **QUIET)
    assert again == found
    written = json.loads(Path("out/diff.json").read_text(encoding="utf-8"))["difference"]
    assert written["agreement"] == found.agreement
    assert [row["agreement"] for row in written["by_image"]] == sorted(row["agreement"] for row in written["by_image"])
    page = read(Path("out/diff.html"))
    assert [tag for tag, _ in page.tags].count("img") == 2


def test_a_rule_without_predictions_differs_from_no_other_judge(data, detectors, capsys):
    found = assign_diff(data, "atss-tiny", against_model=detectors["first"], against_assigner="ATSS", most=1, **QUIET)
    assert found.agreement == 1
    assert "note: ATSS looks at no predictions, so both assignments are the same" in capsys.readouterr().out


def test_names_of_classes_and_files_are_no_markup(tmp_path):
    write_coco(tmp_path / "odd", train=2, val=2, size=64)
    for file in (tmp_path / "odd").rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        for name in CLASSES:
            text = text.replace(f'"name": "{name}"', f'"name": "<b>{name}</b>"')
        file.write_text(text, encoding="utf-8")
    shown = assign_show(str(tmp_path / "odd"), "atss-tiny", out="out", **QUIET)
    found = read(shown.pages[0])
    assert any(text.startswith("<b>") for text in found.texts)
    assert "b" not in {tag for tag, _ in found.tags}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "paaa-tiny", "against_assigner": "ATSS"}, "did you mean paa-tiny"),
        ({"model": "nowhere.safetensors", "against_assigner": "ATSS"}, "nowhere.safetensors: there is no such file"),
        (
            {"model": "strangers", "against_assigner": "ATSS"},
            "--model .*strangers.safetensors: it does not know 'disc'",
        ),
        ({"model": "first", "against_model": "points"}, "--against-model .*points.* has other priors than paa-tiny"),
        ({"model": "first", "teacher": "found.json", "against_assigner": "ATSS"}, "--teacher .*recorded predictions"),
        ({"model": "first", "against_teacher": "strangers"}, "--against-teacher .*strangers.*: it does not know"),
        ({"model": "first", "against_teacher": "ema"}, "^--against-teacher ema: it is made of a student in training"),
        ({"model": "first", "teacher": "ema", "against_model": "second"}, "^--teacher ema: it is made of a student"),
        ({"model": "first", "against_teacher": "onnx:none.onnx"}, "^--against-teacher onnx:none.onnx: "),
        ({"model": "first", "against_teacher": "odd:none"}, "^--against-teacher odd:none: expected weights saved by"),
        ({"model": "first"}, "nothing to compare with: give --against-teacher, --against-model or --against-assigner"),
        ({"model": "first", "against_assigner": "ATTS"}, "--against-assigner ATTS: .*did you mean ATSS?"),
        ({"model": "retinanet-tiny", "against_assigner": "FCOS"}, "it chooses among points"),
        ({"model": "first", "against_assigner": "ATSS", "images": 0}, "--images 0: expected a whole number from 1"),
        ({"model": "first", "against_assigner": "ATSS", "split": "tset"}, "tset"),
    ],
)
def test_mistakes_are_one_sentence(data, detectors, given, sentence):
    given = {key: detectors.get(value, value) for key, value in given.items()}
    with pytest.raises(UserError, match=sentence) as raised:
        assign_diff(data, **QUIET, **given)
    assert "\n" not in str(raised.value)
    assert list(Path().iterdir()) == []


def test_data_without_objects_are_refused(tmp_path):
    write_coco(tmp_path / "bare", train=2, val=2, size=64)
    for file in (tmp_path / "bare").rglob("*.json"):
        values = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(values | {"annotations": []}), encoding="utf-8")
    for verb in (assign_stats, assign_show):
        with pytest.raises(UserError, match="expected objects to learn in the images of train, found none"):
            verb(str(tmp_path / "bare"), "atss-tiny", **QUIET)


def test_padding_of_a_batch_changes_no_image(data):
    """An image that is cut out of a batch is drawn as it is, without the grey of the padding."""
    context = open_context(Options(data, "atss-tiny", "train", None, 64, 8, 0, "cpu", 0))
    (found,) = context.batches([context.side(Wanted(None, None))])
    kept = cut_out(found, 2, ["title"], "name", "caption", [])
    alone = collate([context.source.sample(2)])
    assert torch.equal(kept.image, alone.images[0, :, : kept.image.shape[1], : kept.image.shape[2]])
    assert kept.truth.labels.tolist() == alone.truth.labels.tolist()
