"""What the tests of the benchmarks share."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a module of the benchmarks by its name; all of them are forgotten afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module
    ours = {file.stem for file in FOLDER.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
