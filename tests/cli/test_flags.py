"""Flags in all spellings are parsed to typed arguments, or give an error of one sentence."""

from typing import Annotated, Literal

import pytest
import yaml

from ladle.cli.flags import NEEDED, Argument, Verb, check_complete, read_flags
from ladle.cli.main import main
from ladle.errors import UserError
from ladle.limits import Range
from ladle.recipes import Run

VERB = Verb(
    "paint",
    {
        "data": Argument(str, NEEDED),
        "steps": Argument(Annotated[int, Range(1, 100)], 3),
        "learning_rate": Argument(Annotated[float, Range(0, above=True)] | None, None),
        "quiet": Argument(bool, False),
        "mode": Argument(Literal["color", "gray"] | None, None),
        "name": Argument(str | None, None),
    },
    bare="data",
    also={"folder": "data"},
)


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("there", {"data": "there"}),
        ("-- --there", {"data": "--there"}),
        ("--data there", {"data": "there"}),
        ("folder=there", {"data": "there"}),
        ("--steps 4", {"steps": 4}),
        ("--steps=+4", {"steps": 4}),
        ("steps=4 --steps 5", {"steps": 5}),
        ("--learning-rate 1e-3", {"learning_rate": 1e-3}),
        ("--learning_rate=3", {"learning_rate": 3.0}),
        ("--learning_rate null", {"learning_rate": None}),
        ("--quiet", {"quiet": True}),
        ("--quiet there", {"quiet": True, "data": "there"}),
        ("--quiet false", {"quiet": False}),
        ("--quiet=No", {"quiet": False}),
        ("--mode gray", {"mode": "gray"}),
        ("--name 010", {"name": "010"}),
        ("--name=--steps", {"name": "--steps"}),
        ("--name a=b", {"name": "a=b"}),
        ("--name=", {"name": ""}),
    ],
)
def test_every_spelling_gives_a_typed_value(line, given):
    found = read_flags(VERB, line.split())
    assert found == given
    assert [type(value) for value in found.values()] == [type(value) for value in given.values()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps 0", "--steps takes a whole number from 1 to 100, found 0"),
        ("--steps 1000000000000", "--steps takes a whole number from 1 to 100, found 1000000000000"),
        (f"--steps {'9' * 5000}", "--steps takes a whole number from 1 to 100, found '999"),
        ("--steps 1.0", "from 1 to 100, found 1.0"),
        ("--steps 1_0", "from 1 to 100, found 1_0"),
        ("--steps ٤", "from 1 to 100, found ٤"),
        ("--steps null", "from 1 to 100, found null"),
        ("--steps=", "from 1 to 100, found ''"),
        ("--steps", "--steps takes a whole number from 1 to 100, found nothing behind it"),
        ("--steps --quiet", "--steps takes a whole number from 1 to 100, found nothing behind it"),
        ("--learning_rate nan", "--learning-rate takes a number above 0, found nan"),
        ("--learning_rate inf", "--learning-rate takes a number above 0, found inf"),
        ("--learning_rate 1e999", "--learning-rate takes a number above 0, found 1e999"),
        ("--learning_rate -1", "--learning-rate takes a number above 0, found -1"),
        ("--quiet=maybe", "--quiet takes true or false, found maybe"),
        ("--mode red", "--mode takes one of color, gray, found red"),
        ("--learning-rat 3", "there is no flag --learning-rat; did you mean --learning-rate?"),
        ("--zzz 3", "there is no flag --zzz; `ladle paint --help` lists the flags"),
        ("one two", "expected flags such as --name value, found two"),
        ("-s 3", "expected flags such as --name value, found -s"),
        ("--config", "--config takes a YAML file of flags, found nothing behind it"),
    ],
)
def test_anything_else_is_one_sentence(line, message):
    with pytest.raises(UserError) as error:
        read_flags(VERB, line.split())
    assert message in str(error.value)
    assert len(str(error.value)) < 300


def test_a_missing_required_flag_is_named():
    check_complete(VERB, {"data"})
    with pytest.raises(UserError, match=r"give --data \(`ladle paint --help`\)"):
        check_complete(VERB, {"steps"})


@pytest.fixture
def file(tmp_path):
    """Write a file of flags and return what a line with it gives."""

    def read(content, line="", name="flags.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_flags(VERB, [*line.split(), "--config", str(path)])

    return read


def test_flags_win_over_files_and_later_files_over_earlier_ones(file, tmp_path):
    (tmp_path / "first.yaml").write_text("folder: here\nsteps: 5\nname: first\n")
    content = "folder: there\nsteps: 4\nlearning-rate: 1e-3\nmode:\n"
    assert file(content, f"--steps 7 --config {tmp_path / 'first.yaml'}") == {
        "data": "there",
        "steps": 7,
        "name": "first",
        "learning_rate": 1e-3,
        "mode": None,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 3", "expected flags such as `epochs: 12`, found [3]"),
        ("", "expected flags such as `epochs: 12`, found None"),
        ("steps: many", "--steps takes a whole number from 1 to 100, found 'many'"),
        ("steps: '4'", "--steps takes a whole number from 1 to 100, found '4'"),
        ("steps: 4.0", "--steps takes a whole number from 1 to 100, found 4.0"),
        ("steps: {a: 1}", "--steps takes a whole number from 1 to 100, found {'a': 1}"),
        ("learning_rate: .nan", "--learning-rate takes a number above 0, found nan"),
        ("quiet: 1", "--quiet takes true or false, found 1"),
        ("stepps: 4", "there is no flag --stepps; did you mean --steps?"),
        ("config: other.yaml", "there is no flag --config"),
        ("3: 4", "there is no flag --3"),
        ("steps: 1\nsteps: 2", "expected plain YAML, found a key that stands there more than once"),
        ("learning-rate: 1\nlearning_rate: 2", "expected --learning-rate once, found it again as learning_rate"),
        ("a: &a [1]\nb: *a", "found an alias"),
        ("[" * 3000, "found more than 50 levels"),
        (b"\xff\xfe\x00", "expected YAML in UTF-8"),
        ("x" * 40_000, "expected YAML of at most 32000 bytes"),
    ],
)
def test_the_error_for_a_file_of_flags_names_the_mistake(file, content, message):
    with pytest.raises(UserError, match=r"flags\.yaml: ") as error:
        file(content)
    assert message in str(error.value)


def test_a_file_of_flags_is_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="expected a YAML file of flags, found no file there"):
            read_flags(VERB, ["--config", str(path)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 10**12}, "--batch 1000000000000: expected a whole number from 1 to 4096"),
        ({"imgsz": 10**9}, "--imgsz 1000000000: expected a whole number from 32 to 8192"),
        ({"imgsz": 31}, "--imgsz 31: expected a whole number from 32 to 8192"),
        ({"workers": 10**6}, "--workers 1000000: expected a whole number from 0 to 256"),
        ({"devices": 0}, "--devices 0: expected a whole number from 1 to 64"),
        ({"seed": -1}, "--seed -1: expected a whole number from 0 to 4000000000"),
        ({"seed": 10**30}, "--seed 1000000000000000000000000000000: expected a whole number from 0"),
        ({"epochs": 10**12}, "--epochs 1000000000000: expected a whole number from 1 to 1000000"),
        ({"lr": float("nan")}, "--lr nan: expected a number above 0"),
        ({"lr": float("inf")}, "--lr inf: expected a number above 0"),
        ({"lr": 0.0}, "--lr 0.0: expected a number above 0"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1: expected a number of at least 0"),
        ({"ema": 1.0}, "--ema 1.0: expected a number of at least 0 and below 1"),
        ({"multiscale": 1.0}, "--multiscale 1.0: expected a number of at least 0 and below 1"),
        ({"eval_every": 0}, "--eval-every 0: expected a whole number from 1"),
        ({"jitter": 1.5}, "--jitter 1.5: expected a number from 0 to 1"),
    ],
)
def test_a_run_made_in_python_keeps_the_same_limits(values, message):
    with pytest.raises(UserError) as error:
        Run(**values)
    assert message in str(error.value)


def test_mosaics_that_no_epoch_has_are_refused():
    for values in ({"mosaic": 1.0, "close_mosaic": 12}, {"mixup": 0.5, "close_mosaic": 13}):
        with pytest.raises(UserError, match=r"^--close-mosaic 1\d: none of the 12 epochs would have mosaics"):
            Run(epochs=12, **values)
    assert Run(epochs=13, mosaic=1.0, close_mosaic=12).augmentation.joined == 1


@pytest.mark.parametrize(
    ("imgsz", "change", "sizes"),
    [
        (160, 0.2, (128, 160, 192)),
        (160, 0.39, (128, 160, 192)),
        (160, 0.4, (96, 128, 160, 192, 224)),
        (640, 0.05, (608, 640, 672)),
        (100, 0.28, (96, 128)),
        (64, 0.5, (32, 64, 96)),
        (640, 0.0, None),
    ],
)
def test_sizes_of_multi_scale_training_lie_within_the_largest_change(imgsz, change, sizes):
    assert Run(multiscale=change).scales(imgsz) == sizes


@pytest.mark.parametrize(("imgsz", "change", "least"), [(64, 0.3, "0.50"), (640, 0.02, "0.05"), (100, 0.2, "0.28")])
def test_multi_scale_training_of_one_size_is_refused_with_the_least_change_that_gives_two(imgsz, change, least):
    with pytest.raises(UserError, match=rf"--imgsz {imgsz} there are not two: expected {least} or more"):
        Run(multiscale=change).scales(imgsz)
    assert len(Run(multiscale=float(least)).scales(imgsz)) >= 2


def test_a_file_of_flags_may_hold_numbers_and_lists_where_the_command_line_takes_words(tmp_path, capsys):
    (tmp_path / "flags.yaml").write_text(
        "weight: 2\nwarm: 0.5\nuntil: pkd=3\nunlabelled_score: 0.4\nname: 7\nvalue_range: [0, 4095]\n"
        "loggers: [tensorboard]\nassistants: [tiny, mini]\n"
    )
    assert main(["distill", "--config", str(tmp_path / "flags.yaml"), "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    words = {"name": "7", "value_range": "0,4095", "loggers": "tensorboard", "assistants": "tiny,mini"}
    numbers = {"weight": 2, "warm": 0.5, "until": "pkd=3", "unlabelled_score": 0.4}
    assert {name: printed[name] for name in (*words, *numbers)} == words | numbers
    (tmp_path / "flags.yaml").write_text("value_range: [[0], 1]\n")
    assert main(["distill", "--config", str(tmp_path / "flags.yaml")]) == 2
    assert "--value-range takes a text" in capsys.readouterr().err


def test_the_printed_flags_are_read_again(capsys, tmp_path):
    assert main(["train", "--data", "x", "--lr", "1e-5", "--name", "1", "--print-config"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "again.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == text
    assert "lr: 1.0e-05\n" in text
    assert "name: '1'\n" in text


@pytest.mark.parametrize("line", [["check", "no\nwhere"], ["a\nb"], ["check", "\ud800"], ["check", "\x1b[2J"]])
def test_a_sentence_is_one_line_whatever_it_names(capsys, line):
    assert main(line) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.rstrip("\n").isprintable()


def test_where_no_word_stands_alone_the_word_behind_a_switch_is_its_value():
    verb = VERB._replace(bare=None)
    assert read_flags(verb, ["--quiet", "false", "--steps", "4"]) == {"quiet": False, "steps": 4}
    assert read_flags(verb, ["--quiet", "steps=4"]) == {"quiet": True, "steps": 4}
    with pytest.raises(UserError, match="--quiet takes true or false, found maybe"):
        read_flags(verb, ["--quiet", "maybe"])
