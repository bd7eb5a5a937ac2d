"""Shape checks are on in tests: annotated tensors are checked against their jaxtyping shapes at run time."""

from pathlib import Path

import pytest

from tests import typechecker

typechecker.install()


def pytest_runtest_setup():
    typechecker.begin_test()


@pytest.fixture(scope="session", autouse=True)
def charts_of_runs_are_rendered_once():
    """Of the charts in the ``plots`` of runs, matplotlib renders the first of each name; the others are copies of it.

    All of them are laid out. Rendering takes as long as the training of a tiny run; that charts show what they should
    is tested with the charts.
    """
    from ladle.files import write_atomically
    from ladle.visual import charts

    render, rendered = charts.save_figure, {}

    def save(figure, path):
        path = Path(path)
        if path.parent.name != "plots":
            return render(figure, path)
        if path.name not in rendered:
            rendered[path.name] = render(figure, path).read_bytes()
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: part.write_bytes(rendered[path.name]))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "save_figure", save)
        yield
