"""Agreement of the assignments from a student's and its teacher's predictions: the share of common positives.

    python benchmarks/agreement.py --data scenes --teacher T.safetensors --students plain.safetensors,lad.safetensors

For every validation image PAA assigns twice, once with the student's predictions and once with the teacher's. The
output is the intersection over union of the two sets of (prior, object) pairs and the positives per object of each
judge, for an untrained student and for each given file. `ladle assign diff` does the same for one student, with more
numbers.
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
    assigner, images = PAA(), []
    for batch in loader:
        output = student(batch.images, batch.sizes)[0]
        judged = teacher.predict_at(teacher.observe(batch), output.priors)
        plans = [assigner(judge.predictions, output.priors, batch.truth) for judge in (output, judged)]
        found = compare(*plans, batch.truth)
        images += [found.of_image(row, name) for row, name in enumerate(batch.ids)]
    total = Difference.of(images)
    objects = max(total.objects, 1)
    return total.agreement, total.first / objects, total.second / objects


def main():
    """Print one line per student."""
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
    print("| student | agreement | positives per object, student | teacher |\n|---|---|---|---|")
    for name, student in students.items():
        common, of_student, of_teacher = agreement(student, teacher, loader)
        print(f"| {name} | {100 * common:.0f} % | {of_student:.1f} | {of_teacher:.1f} |")


if __name__ == "__main__":
    main()
