"""The command line: flags, output, and the files that it writes."""

import json
import shutil
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import yaml

from ladle import engine
from ladle.cli.main import VERBS, main
from ladle.data.scenes import CLASSES
from ladle.detectors import read_spec, save_detector
from ladle.families import detector_spec
from ladle.recipes import Run, distill, preflight
from tests.recipes.tiny import FLAGS, make_data, make_teacher

TINY = "--imgsz 64 --batch 4 --epochs 1 --device cpu"
TEACHER = "teacher.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set and a teacher; every run of this file goes below it."""
    folder = tmp_path_factory.mktemp("place")
    make_data(folder / "data")
    shutil.copy(make_teacher(str(folder / "data"), folder / "school"), folder / TEACHER)
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture
def ladle(capsys):
    """Run a line of the command line and return what was printed; it must succeed."""

    def run(line):
        code = main(line.split())
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture
def begun(capsys, monkeypatch):
    """Run a line up to the training itself, where it is stopped as by Ctrl-C, and return what was printed."""

    def stop(devices, device, work, ready):
        (Path(ready.job.folder) / "weights").mkdir()  # a run that has nothing yet leaves no folder
        raise KeyboardInterrupt

    def run(line):
        with monkeypatch.context() as patch:
            patch.setattr(engine, "one_process", lambda *_: None)
            patch.setattr(engine, "launch", stop)
            code = main(line.split())
        printed = capsys.readouterr()
        assert code == 130, printed.err
        assert printed.err.count("\n") <= 1, printed.err
        return printed.out

    return run


@pytest.fixture
def refused(capsys):
    """Run a line that must fail with exit code 2 and one sentence, and return the sentence."""

    def run(line):
        assert main(line.split()) == 2
        printed = capsys.readouterr()
        sentence = printed.err.strip()
        verb = next((verb for verb in VERBS if f"{line} ".startswith(f"{verb} ")), line.split()[0])
        assert sentence.startswith(f"ladle {verb}: ")
        assert "\n" not in sentence
        assert "Traceback" not in printed.err + printed.out
        return sentence

    return run


@pytest.mark.parametrize("line", ["", "-h", "--help"])
def test_help_names_every_verb(ladle, line):
    printed = ladle(line)
    assert all(f"  {verb} " in printed and meaning in printed for verb, meaning in VERBS.items())


def test_the_version_is_printed(ladle):
    assert ladle("--version").startswith("ladle 0.")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_lists_its_flags(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert VERBS[verb] in printed
    assert "--config" in printed


def test_every_flag_of_a_run_is_described(capsys):
    assert main(["distill", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for flag in (*signature(distill).parameters, *(field.name for field in fields(Run))):
        assert flag == "run" or f" --{flag} {flag.upper()} " in printed or f" --{flag} {{" in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "did you mean `ladle train`?"),
        ("sing", "expected one of demo, train"),
        ("assign", "expected one of `ladle assign show`, `ladle assign stats`, `ladle assign diff`"),
        ("assign shwo", "expected one of `ladle assign show`, `ladle assign stats`, `ladle assign diff`"),
        ("assign stats --data data", "give --model (`ladle assign stats --help`)"),
        ("assign show --most 0", "--most takes a whole number from 1 to 10000, found 0"),
        ("train --epoch_s 3", "did you mean --epochs?"),
        ("train --epoch-s=3", "did you mean --epochs?"),
        ("train epoch_s=3", "did you mean --epochs?"),
        ("train --weigth-decay 0.1", "did you mean --weight-decay?"),
        ("train --zzz 3", "`ladle train --help` lists the flags"),
        ("train --epochs many", "--epochs takes a whole number from 1 to 1000000, found many"),
        ("train --epochs=1.5", "--epochs takes a whole number from 1 to 1000000, found 1.5"),
        ("train --imgsz large", "--imgsz takes a whole number from 32 to 8192, found large"),
        ("train --lr fast", "--lr takes a number above 0, found fast"),
        ("train --pretrained=maybe", "--pretrained takes true or false, found maybe"),
        ("train --device tpu", "--device takes one of auto, cpu, cuda, found tpu"),
        ("train --optimizer lion", "--optimizer takes one of sgd, adamw, found lion"),
        ("distill --method osmosis", "no method is called 'osmosis'"),
        ("distill --method ladd", "did you mean lad?"),
        ("distill --method plain", "use `ladle train`"),
        ("colearn --surer loudest", "--surer takes one of spread, fisher, found loudest"),
        ("val --model x --data y --device tpu", "--device takes one of auto, cpu, cuda, found tpu"),
        ("train --epochs", "--epochs"),
        ("train data", "expected flags such as --name value, found data"),
        ("predict", "give --source and --model"),
        ("predict modle=x.safetensors a.png", "did you mean --model?"),
        ("predict a.png --model x --score 3", "--score takes a number from 0 to 1, found 3"),
        ("predict --model --source=a.png score=0.5", "--model takes a text, found nothing behind it"),
        ("predict a.png --model x --score lots", "--score takes a number from 0 to 1, found lots"),
        ("predict a.png --model x --max-det 0", "--max-det takes a whole number from 1 to 10000, found 0"),
        ("val --data data --model x --max-det 0", "--max-det takes a whole number from 1 to 10000, found 0"),
        ("train --data data --max-det 0", "--max-det takes a whole number from 1 to 10000, found 0"),
        ("check a b", "expected flags such as --name value, found b"),
        ("val --data data", "give --model"),
        ("check", "give --data"),
        ("train --config nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_the_error_for_a_typing_mistake_names_the_correction(refused, line, message):
    assert message in refused(line)


@pytest.mark.parametrize(
    ("text", "message"),
    [("epoch_s: 3", "did you mean --epochs?"), ("epochs: many", "--epochs takes a whole number"), ("- 3", "config")],
)
def test_a_mistake_in_a_config_gives_the_same_error_as_in_a_flag(refused, text, message):
    Path("slip.yaml").write_text(text)
    assert message in refused("train --config slip.yaml")


def configured(name):
    return yaml.safe_load(Path(f"runs/train/{name}/config.yaml").read_text())


def test_training_writes_a_run_and_prints_a_summary(ladle):
    printed = ladle(f"train --data data --model paa-tiny {TINY} --name files --max-det 2")
    files = {path.relative_to("runs/train/files").as_posix() for path in Path("runs/train/files").rglob("*.*")}
    assert files >= {"config.yaml", "metrics.jsonl", "results.csv", "resume.pt"}
    assert files >= {f"weights/{name}.safetensors" for name in ("best", "last")}
    assert files >= {f"plots/{name}.png" for name in ("history", "precision_recall", "confusion")}
    assert "8 images to train on, 4 to validate, 6 classes" in printed
    assert "paa-tiny at 64 px" in printed
    assert "images hold more than 2 objects" in printed
    assert "up to 2 detections of an image count, not 100 as in COCO" in printed
    assert "AP50" in printed
    weights = "runs/train/files/weights/best.safetensors"
    page = "runs/train/files/report.html"
    assert f"\nweights   {weights}\nreport    {page}\nnext      ladle val --data data --model {weights}\n" in printed
    assert printed.endswith(f"          ladle predict IMAGES --model {weights}\n")
    assert read_spec(Path(weights)).inference.keep == 2


@pytest.mark.slow
def test_a_quiet_run_prints_nothing(ladle):
    assert ladle(f"train --data data --model paa-tiny {FLAGS} --name quiet") == ""


def test_every_spelling_means_the_same(begun):
    begun("train data=data model=paa-tiny imgsz=64 batch=4 epochs=1 device=cpu quiet=true weight_decay=0.1 name=one")
    begun(f"train --quiet --data=data --model paa-tiny {TINY} --weight-decay 0.1 --name two")
    begun(f"train --weight_decay 1e-1 --data data --model paa-tiny {TINY} --quiet true name=three")
    one, two, three = (configured(name) for name in ("one", "two", "three"))
    for other in (two, three):
        other["name"] = "one"
        assert other == one
    assert one["weight_decay"] == 0.1
    assert one["quiet"] is True


def test_flags_win_over_the_config_and_the_config_over_the_defaults(begun):
    values = {"data": "data", "model": "paa-tiny", "imgsz": 64, "batch": 2, "epochs": 9, "device": "cpu", "seed": 3}
    Path("run.yaml").write_text(yaml.safe_dump(values | {"quiet": True}))
    begun("train --config run.yaml --epochs 1 --name layered")
    run = configured("layered")
    assert (run["epochs"], run["batch"], run["seed"], run["schedule"]) == (1, 2, 3, "cosine")


def test_the_config_of_a_run_starts_another_like_it(begun):
    begun(f"train --data data --model paa-tiny {TINY} --quiet --name first")
    begun("train --config runs/train/first/config.yaml --name again")
    assert configured("again") == configured("first") | {"name": "again"}


def test_a_value_may_hold_an_equals_sign_and_a_number_may_be_negative(refused):
    assert "seed=1: expected a data set" in refused("train --data seed=1")
    assert "-64" in refused(f"train --data data --model paa-tiny {TINY} --imgsz -64 --quiet")


def test_val_scores_what_was_trained(ladle):
    printed = ladle(f"val --data data --model {TEACHER} --device cpu --out scores")
    assert "AP75" in printed
    assert all(name in printed for name in CLASSES)
    assert isinstance(json.loads(Path("scores/results.json").read_text()), list)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (f"predict data/val/000001.png --model {TEACHER}", 1),
        (f"predict data/val --model {TEACHER}", 4),
        (f"predict --model {TEACHER} data/train", 8),
        (f"predict data/val/00000[12].png --model {TEACHER}", 2),
        (f"predict source=data/val model={TEACHER} score=0.9", 4),
    ],
)
def test_predict_draws_an_image_a_folder_and_a_pattern(ladle, tmp_path, line, count):
    assert f"in {count} pictures" in ladle(f"{line} --device cpu --out {tmp_path}")
    assert len(list(tmp_path.glob("*.png"))) == count


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["a.png", "b.png"], "a b"),
        (["--model", TEACHER, "a.png", "--score", "0.5", "b.png", "a.png"], "a b"),
        (["c=1.png"], "c=1"),
        (["score=1.png", "-x.png"], "score=1 -x"),
        (["--", "-x.png", "--source.png", "-h"], "-x --source -h"),
        (["c=*.png"], "c=1"),
        (["--source", "[a, b]"], "in"),
        (["[a, b]", "[x].png"], "in [x]"),
        (["source=a.png", "--source=b.png"], "a b"),
        (["null", "1"], "null 1"),
    ],
)
def test_predict_takes_files_as_a_shell_hands_them_over(words, names, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c=1", "score=1", "-x", "--source", "[x]", "[a, b]/in"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(place / "data/val/000001.png", f"{name}.png")
    for name in ("-h", "null", "1"):
        shutil.copy(place / "data/val/000001.png", name)
    shutil.copy(place / TEACHER, TEACHER)
    assert main(["predict", "--model", TEACHER, "--device", "cpu", "--imgsz", "32", "--out", "out", *words]) == 0
    drawn = [image["drawing"] for image in json.loads(Path("out/images.json").read_text())]
    assert drawn == [f"{name}.png" for name in names.split()]
    assert capsys.readouterr().err == ""


def test_a_damaged_image_among_others_gives_exit_code_2(capsys, tmp_path):
    shutil.copytree("data/val", tmp_path / "in")
    (tmp_path / "in" / "000001.png").write_bytes(b"half")
    line = f"predict {tmp_path / 'in'} --model {TEACHER} --device cpu --out {tmp_path / 'out'}"
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert "in 3 pictures" in printed.out
    assert len(printed.err.splitlines()) == 2
    assert "000001.png: expected a whole image" in printed.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_predict_without_an_image_is_refused(refused):
    assert "found no image" in refused(f"predict nowhere --model {TEACHER}")


def test_a_good_data_set_passes_the_check(ladle):
    printed = ladle("check data")
    assert "no fatal defects" in printed
    assert "8 pictures" in printed


def test_a_broken_data_set_fails_the_check(capsys, tmp_path):
    shutil.copytree("data", tmp_path / "broken")
    (tmp_path / "broken" / "train" / "000003.png").unlink()
    assert main(["check", str(tmp_path / "broken")]) == 2
    printed = capsys.readouterr()
    assert "FATAL" in printed.out
    assert "000003.png" in printed.out
    assert "Traceback" not in printed.err


def test_the_built_in_scenes_need_no_check(refused):
    assert "the built-in scenes are drawn without defects" in refused("check scenes")
    assert "the built-in scenes are drawn without defects" in refused("check scenes:30")


@pytest.mark.slow
def test_the_detectors_are_listed(ladle):
    printed = ladle("models")
    assert "paa-tiny" in printed
    assert all(name in printed for name in ("fcos", "rtmdet", "r101", "Hungarian", "PseudoIoU"))
    assert "…" not in printed, "something does not fit into a line"
    assert "mobilenetv3_small_100" in ladle("models --timm mobilenetv3_small*")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lad", "solad", "soft", "soft-only"])
def test_a_student_is_distilled(ladle, method):
    line = f"distill --data data --student paa-tiny --teacher {TEACHER} --method {method} --allow-weak-teacher {TINY}"
    printed = ladle(line)
    folder = Path("runs/distill") / f"paa-tiny-{method}"
    assert (folder / "weights" / "best.safetensors").is_file()
    assert f"method    {method}: " in printed
    assert f"({TEACHER})" in printed
    assert yaml.safe_load((folder / "config.yaml").read_text())["method"] == method


@pytest.mark.parametrize(
    ("line", "assigner"),
    [
        ("train --data data --model fcos-tiny --assigner PAA", "PAA"),
        ("train --data data --student fcos-tiny --assigner task-aligned", "TaskAligned"),
        ("train --data data --model rtmdet-tiny", "DynamicSoftLabel"),
        (
            f"distill --data data --student atss-tiny --teacher {TEACHER} --allow-weak-teacher",
            "ATSS, judged by the teacher",
        ),
    ],
)
def test_the_assigner_can_be_chosen_and_is_printed(begun, line, assigner):
    assert f"assigner  {assigner}\n" in begun(f"{line} {TINY}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train", "--data"),
        ("train --data nowhere", "nowhere"),
        ("train --data data --model paa-tinny", "tinny"),
        (f"train --data data --model paa-tiny {TINY} --imgsz 10", "--imgsz"),
        (f"train --data data --model paa-tiny {TINY} --pretrained", "tiny has no published weights"),
        ("train --resume data", "--resume data: expected a run folder"),
        ("train --resume nowhere", "--resume nowhere"),
        ("distill --data data --student paa-tiny", "--teacher"),
        ("distill --data data --student paa-tiny --teacher nowhere.safetensors", "nowhere.safetensors"),
        ("distill --data data --student paa-tiny --teacher data", "--teacher data"),
        (f"distill --data data --student retinanet-tiny --method cross --teacher {TEACHER}", "at the same priors"),
        (f"train --data data --model paa-tiny --assigner TaskAlined {TINY}", "did you mean TaskAligned?"),
        (f"train --data data --model paa-tiny --assigner nonsense {TINY}", "take one of ATSS, AutoAssign"),
        (f"train --data data --model retinanet-tiny --assigner FCOS {TINY}", "it chooses among points"),
        (f"distill --data data --student paa-tiny --assigner PPA --teacher {TEACHER}", "did you mean PAA?"),
        (f"distill --data data --student paa-tiny --method ld --teacher {TEACHER}", "the student says none"),
        (f"distill --data data --student paa-tiny --method lad+pkd --weight cwd=1 --teacher {TEACHER}", "'cwd'"),
        (f"colearn --data data --first paa-tiny --second fcos-tiny {TINY}", "cannot learn from each other"),
        (f"colearn --data data --first atss-tiny --second paa-tiny {TINY}", "take --assigner PAA"),
        (f"colearn --data data --first paa-tiny --second paa-tiny --method lad {TINY}", "leave --method out"),
        (f"distill --data data --student fasterrcnn-tiny --method lad --teacher {TEACHER}", "take lad-rpn"),
        (f"distill --data data --student fasterrcnn-tiny --method cross --teacher {TEACHER}", "cross"),
        (f"distill --data data --student paa-tiny --method lad-roi --teacher {TEACHER}", "has one stage only; say lad"),
        (f"distill --data data --student paa-tiny --method lad --class_power 1 --teacher {TEACHER}", "does not use it"),
        (f"distill --data data --student paa-tiny --method soft --judge_until 1 --teacher {TEACHER}", "add lad"),
        (f"distill --data data --student paa-tiny --method lad --balance norm --teacher {TEACHER}", "is distilled"),
        (
            f"distill --data data --student paa-tiny --method soft-only --balance norm --teacher {TEACHER}",
            "ground truth",
        ),
        (
            f"distill --data data --student paa-tiny --method soft --balance_share 2 --teacher {TEACHER}",
            "add --balance",
        ),
        (
            f"distill --data data --student paa-tiny --method soft --balance half --teacher {TEACHER}",
            "none, moments, norm",
        ),
        (f"train --data data --model fasterrcnn-tiny --assigner AutoAssign {TINY}", "cannot draw a sample"),
        (f"train --data data --model fasterrcnn+dist-tiny {TINY}", "dist"),
        (f"colearn --data data --first fasterrcnn-tiny --second fasterrcnn-tiny {TINY}", "works in stages"),
        (f"colearn --data data --first paa-tiny --second cascade-tiny --assigner PAA {TINY}", "works in stages"),
        (f"val --data nowhere --model {TEACHER}", "nowhere"),
        (f"val --data data --split test --model {TEACHER}", "test"),
        ("val --data data --model nowhere.safetensors", "nowhere.safetensors"),
        ("check nowhere", "nowhere"),
    ],
)
def test_a_mistake_gives_one_sentence(refused, line, message):
    assert message in refused(line)


def test_a_teacher_that_is_no_detector_is_refused(refused):
    Path("letter.safetensors").write_text("dear student")
    assert "letter.safetensors" in refused("distill --data data --student paa-tiny --teacher letter.safetensors")


def test_a_teacher_that_lacks_a_class_is_refused_by_the_classs_name(refused):
    few = [name for name in CLASSES if name != "crescent"]
    save_detector(detector_spec("paa-tiny", few).build(), Path("few.safetensors"))
    assert "crescent" in refused("distill --data data --student paa-tiny --teacher few.safetensors")


def test_the_error_for_a_weak_teacher_names_the_flag_that_accepts_it(refused, monkeypatch):
    monkeypatch.setattr(preflight, "LEAST_AP", 1.0)
    message = refused(f"distill --data data --student paa-tiny --teacher {TEACHER} {TINY}")
    assert "--allow-weak-teacher" in message
    assert TEACHER in message


@pytest.mark.slow
def test_a_name_that_is_taken_is_refused_and_the_run_can_be_resumed(ladle, refused):
    line = f"train --data data --model paa-tiny {FLAGS} --name taken"
    ladle(line)
    before = Path("runs/train/taken/weights/last.safetensors").read_bytes()
    assert "--resume runs/train/taken" in refused(line)
    assert "ladle train" in refused("distill --resume runs/train/taken")
    assert ladle("train --resume runs/train/taken") == ""
    assert Path("runs/train/taken/weights/last.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_run_whose_teacher_changed_is_not_resumed(ladle, refused):
    shutil.copy(TEACHER, "other.safetensors")
    ladle(
        f"distill --data data --student paa-tiny --teacher other.safetensors {FLAGS} --allow-weak-teacher --name moved"
    )
    save_detector(detector_spec("paa-tiny", CLASSES).build(), Path("other.safetensors"))
    assert "not the file this run began with" in refused("distill --resume runs/distill/moved")


def test_a_place_that_cannot_be_written_is_named(refused):
    Path("file").write_text("in the way")
    assert "file" in refused(f"train --data data --model paa-tiny {FLAGS} --project file")
