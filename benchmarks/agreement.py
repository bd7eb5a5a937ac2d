"""How far a student's judgement is from its teacher's: the share of positives on which both agree.

    python benchmarks/agreement.py --data scenes --teacher T.safetensors --students plain.safetensors,lad.safetensors

For every validation image PAA assigns twice, once with the student's predictions and once with the teacher's. Printed
are the intersection over union of the two sets of (prior, object) pairs and the positives per object of each judge, for
an untrained student and for each file given. `ladle assign diff` does the same for one student, with more numbers.
"""

import argparse

import torch

from ladle import load_detector
from ladle.assigners import PAA
from ladle.data.loader import make_loader
from ladle.recipes.options import Run
from ladle.recipes.sources import open_source
from ladle.statistics import Difference, compare
from ladle.teachers import FrozenDetector


@torch.no_grad()
def agreement(student, teacher, loader):
    """Intersection over union of the pairs, and positives per object under student and teacher."""
    rule, images = PAA(), []
    for batch in loader:
        output = student(batch.images, batch.sizes)[0]
        taught = teacher.predict_at(teacher.observe(batch), output.priors)
        plans = [rule(judge.predictions, output.priors, batch.truth) for judge in (output, taught)]
        found = compare(*plans, batch.truth)
        images += [found.of_image(row, name) for row, name in enumerate(batch.ids)]
    total = Difference.of(images)
    objects = max(total.objects, 1)
    return total.agreement, total.first / objects, total.second / objects


def main():
    """Print one line a student."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--students", required=True)
    arguments = parser.parse_args()
    files = arguments.students.split(",")
    students = {file: load_detector(file).eval() for file in files}
    spec = students[files[0]].spec
    torch.manual_seed(0)
    students = {"untrained": spec.build().eval()} | students
    teacher = FrozenDetector(load_detector(arguments.teacher), spec.classes)
    source = open_source(arguments.data, "val", Run(), spec.imgsz)
    loader = make_loader(source, 16, spec.imgsz)
    print("| student | agreement | positives an object, student | teacher |\n|---|---|---|---|")
    for name, student in students.items():
        common, own, theirs = agreement(student, teacher, loader)
        print(f"| {name} | {100 * common:.0f} % | {own:.1f} | {theirs:.1f} |")


if __name__ == "__main__":
    main()
