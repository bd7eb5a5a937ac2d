"""The time that distillation adds to a training step, and a comparison with mmdetection.

    make bench-steps
    python benchmarks/step.py --scene s640_n20 --student r18 --teacher r50 --rounds 12

In one run, in several rounds, measured in turns: a plain step of the student (forward, assignment, losses, backward,
optimizer), a forward pass of the teacher alone, and a step of every method. A method's overhead is its median over the
sum of the medians of the first two. Of two steps in each turn the second is timed, because the first starts with the
heap of another contender. The comparison is mmdetection's LAD, whose PAA fits its mixtures by scikit-learn, on the same
networks, images and objects. Networks have random weights, which does not change the time.
"""

import argparse
import platform
import statistics

import torch
from peers.calm import take_turns
from peers.case import SCENES, Case

from ladle.families import Start, detector_spec
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.teachers import FrozenDetector
from ladle.types import Batch, GroundTruth


def batch_of(case, count, device):
    """Random images of a scene's size with its objects."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, *case.size), dtype=torch.uint8, generator=generator)
    boxes, labels = zip(*case.objects[:count], strict=True)
    sizes = torch.tensor([case.size] * count)
    return Batch(images, GroundTruth.pad(boxes, labels), sizes, sizes, tuple(range(count))).to(device)


def network(backbone, family, classes):
    """A detector with random weights and frozen normalization, as in the published recipes."""
    torch.manual_seed(0)
    names = tuple(map(str, range(classes)))
    spec = detector_spec(f"{family}-{backbone}", names, start=Start(norm="frozen"))
    return spec.build()


def step_of(objective, batch):
    """One training step as a function without arguments."""
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-4, momentum=0.9)
    objective.train()

    def step():
        terms = objective(batch)
        loss = sum(term.total / torch.maximum(term.count, term.floor).clamp(min=1e-6) for term in terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def contenders(arguments):
    """The timed functions by name."""
    case = Case(arguments.scene, arguments.device)
    batch = batch_of(case, arguments.batch, arguments.device)
    teacher = FrozenDetector(
        network(arguments.teacher, arguments.family, case.classes), tuple(map(str, range(case.classes)))
    )
    teacher.to(arguments.device)

    def student():
        return network(arguments.student, arguments.family, case.classes).to(arguments.device)

    plain = plan_for("plain", student().spec)
    priors = [output.priors for output in student()(batch.images, batch.sizes)]
    every = {
        "plain step": step_of(TrainingStep(student(), plain.lessons), batch),
        "bare teacher": lambda: [teacher.predict_at(teacher.observe(batch), one) for one in priors],
    }
    for method in arguments.methods.split(","):
        plan = plan_for(method, student().spec, teacher.detector.spec)
        every[method] = step_of(TrainingStep(student(), plan.lessons, teacher), batch)
    if arguments.peer:
        from peers.lad import lad_step

        images = (batch.images.float() / 255 - 0.45) / 0.22
        every["mmdetection LAD"] = lad_step(
            arguments.student, arguments.teacher, images, case.objects[: arguments.batch], case.classes
        )
    return every


def main():
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default="s640_n20", choices=SCENES)
    parser.add_argument("--family", default="paa")
    parser.add_argument("--student", default="r18")
    parser.add_argument("--teacher", default="r50")
    parser.add_argument("--methods", default="lad,solad,lad+pkd,lad+fgd")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    times, foreign = take_turns(contenders(arguments), arguments.rounds, arguments.device)
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor = medians["plain step"] + medians["bare teacher"]
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()} CPU"
    images = f"{arguments.batch} images of {SCENES[arguments.scene]} objects"
    networks = f"student {arguments.family}-{arguments.student}, teacher {arguments.family}-{arguments.teacher}"
    print(f"{where}, {arguments.threads} threads, torch {torch.__version__}: {images}, {networks}")
    print(f"{arguments.rounds} rounds, other processes took at most {foreign:.0%} of the machine\n")
    print("| | median | least | most | over plain step + bare teacher | mmdetection's LAD over this |")
    print("|---|---|---|---|---|---|")
    for name, values in times.items():
        share = "" if name in ("plain step", "bare teacher") else f"{medians[name] / floor:.3f}"
        beside = f"{medians['mmdetection LAD'] / medians[name]:.2f}" if arguments.peer and name == "lad" else ""
        spread = f"{min(values):.2f} s | {max(values):.2f} s"
        print(f"| {name} | {medians[name]:.2f} s | {spread} | {share} | {beside} |")


if __name__ == "__main__":
    main()
