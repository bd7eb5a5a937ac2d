"""One data set, one teacher and two runs with reports for all recipes; no test changes them."""

import shutil
from dataclasses import replace

import pytest

from ladle.recipes import distill, train
from tests.recipes.tiny import RUN, make_data, make_teacher


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    return make_teacher(data, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("reported")


@pytest.fixture(scope="session")
def moved(data, place):
    """A copy of the data that a test may remove."""
    return str(shutil.copytree(data, place / "data"))


@pytest.fixture(scope="session")
def plain(moved, place):
    return train(moved, "paa-tiny", replace(RUN, epochs=2, name="plain", project=str(place), log_every=1))


@pytest.fixture(scope="session")
def taught(moved, teacher, place):
    run = replace(RUN, name="<b>taught", project=str(place))
    return distill(moved, "paa-tiny", teacher, "lad", run, allow_weak_teacher=True)
