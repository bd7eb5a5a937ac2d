"""One data set and one teacher for all recipes; no test changes them."""

import pytest

from tests.recipes.tiny import make_data, make_teacher


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    return make_teacher(data, tmp_path_factory.mktemp("teacher"))
