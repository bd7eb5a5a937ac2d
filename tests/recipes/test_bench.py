"""``ladle bench``: what it refuses before it measures, and the AP beside its numbers."""

import sys

import pytest

from ladle.cli.main import main
from ladle.data.scenes import CLASSES
from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import bench

benches = sys.modules["ladle.recipes.bench"]  # its name in the package is that of the function


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be loaded or timed."""
    monkeypatch.setattr(benches, "load_detector", None)
    monkeypatch.setattr(benches, "latency_of", None)


@pytest.fixture
def stranger(tmp_path):
    """A detector of classes that the data lack."""
    save_detector(detector_spec("fcos-tiny", ("cat", "dog"), imgsz=64).build(), tmp_path / "stranger.safetensors")
    return str(tmp_path / "stranger.safetensors")


def test_a_place_where_the_numbers_cannot_be_written_is_refused_before_anything_is_measured(
    teacher, tmp_path, unmeasured, monkeypatch
):
    (tmp_path / "chart.png").mkdir()
    (tmp_path / "file").touch()
    for out, found in {
        tmp_path: "expected a .json file, found a folder: name a file in it, such as bench.json",
        ".": "expected a .json file, found a folder",
        tmp_path / "chart.json": f"its chart lies beside it as .png, found the folder {tmp_path / 'chart.png'}",
        tmp_path
        / "file"
        / "bench.json": f"in a folder that can be written to, found {tmp_path / 'file'}: name another",
    }.items():
        with pytest.raises(UserError, match=f"^--out {out}: .*{found}"):
            bench(teacher, out=str(out))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=f"in a folder that can be written to, found {tmp_path}: name another"):
        bench(teacher, out=str(tmp_path / "new" / "bench.json"))


def test_files_and_data_that_cannot_be_measured_are_refused_before_the_first_detector_is(
    data, teacher, stranger, tmp_path, unmeasured, capsys
):
    for words, found in {
        (stranger, "--data", data): f"{stranger} has the classes cat, dog, but {data} has {', '.join(CLASSES)}",
        (str(tmp_path / "none.safetensors"),): f"{tmp_path / 'none.safetensors'}",
        (str(tmp_path / "none.onnx"),): f"{tmp_path / 'none.onnx'}: there is no such file; expected one written by",
        ("--data", str(tmp_path / "none")): f"{tmp_path / 'none'}",
    }.items():
        assert main(["bench", teacher, *words]) == 2
        error = capsys.readouterr().err
        assert found in error
        assert error.count("\n") == 1
