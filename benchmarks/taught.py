"""What a student is told: the AP of a teacher's own detections, and of its predictions at the student's priors.

    python benchmarks/taught.py --data DIR --teacher onnx:FILE --student paa-tiny --imgsz 128

The second goes through the score threshold and the NMS of the student's detector, without a quality branch. A student
that imitates these predictions is not expected to become better than they are.
"""

import argparse
from dataclasses import replace

import torch

from ladle.families import detector_spec
from ladle.recipes.options import Run
from ladle.recipes.recorded import beside
from ladle.recipes.scoring import USUAL_MOST, Evaluator, find_of
from ladle.recipes.sources import open_source
from ladle.teachers import open_teacher


def told(teacher, detector):
    """The detections of a teacher's predictions at the priors of a detector."""
    inference = replace(detector.spec.inference, rule="class", voting=False, keep=USUAL_MOST)

    @torch.no_grad()
    def find(batch):
        priors = detector(batch.images, batch.sizes)[0].priors
        output = teacher.predict_at(teacher.observe(batch), priors)
        return inference.find(output, batch.sizes, batch.originals), 0

    return find


def main():
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", default="paa-tiny")
    parser.add_argument("--imgsz", type=int, required=True)
    arguments = parser.parse_args()
    images = open_source(arguments.data, "val", Run(cache=True), arguments.imgsz)
    teacher = open_teacher(arguments.teacher, images.classes, images.category_ids)
    views = beside(images, teacher, arguments.teacher)
    detector = detector_spec(arguments.student, images.classes, imgsz=arguments.imgsz).build().eval()
    evaluator = Evaluator(images, arguments.imgsz, 16, views=views)
    for name, find in (("the teacher itself", find_of(teacher, "cpu")), ("at the priors", told(teacher, detector))):
        print(name, evaluator.score(find, images.classes, USUAL_MOST).evaluation.row())


if __name__ == "__main__":
    main()
