"""The examples in docstrings run as they stand, and give what they say."""

import inspect
from doctest import DocTestParser, DocTestRunner
from itertools import groupby

import pytest

from ladle import assigners, boxes, criteria, detectors, distillers, engine, families, overlaps, statistics
from ladle.visual import html

CLASSES = [
    part
    for package in (assigners, criteria, distillers)
    for part in (getattr(package, name) for name in package.__all__)
    if inspect.isclass(part)
] + [engine.Objective, families.Family]
FUNCTIONS = [
    assigners.keep_sampled,
    boxes.area,
    boxes.centerness,
    boxes.clip,
    boxes.decode_deltas,
    boxes.decode_distances,
    boxes.giou,
    boxes.iou,
    boxes.pairwise_iou,
    detectors.load_detector,
    detectors.save_detector,
    families.detector_spec,
    overlaps.best_overlaps,
    overlaps.outside_crowds,
    html.write_page,
    statistics.advice,
    statistics.compare,
    statistics.pairs_of,
    statistics.summarize,
]


def home(part):
    return part.__module__


MODULES = {module: list(parts) for module, parts in groupby(sorted(CLASSES + FUNCTIONS, key=home), key=home)}


@pytest.mark.parametrize("module", MODULES)
def test_examples_run_as_they_stand(module):
    for part in MODULES[module]:
        example = DocTestParser().get_doctest(inspect.getdoc(part), {}, f"{module}.{part.__name__}", None, 0)
        assert example.examples, f"{example.name} has no example"
        told = []
        failed, _ = DocTestRunner().run(example, out=told.append)
        assert not failed, "".join(told)
