"""What tests of reports read from runs and pages."""

from functools import cache

from ladle.recipes.report_runs import read_run
from tests.visual.test_html import read

recorded = cache(read_run)


def numbers_of(run):
    (one,) = recorded(run.folder).numbers.students
    return one


def texts(page):
    return read(page).texts
