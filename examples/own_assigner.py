"""A custom assigner: tested with the laws, then used with the predictions of a teacher.

An assigner is any callable ``(predictions, priors, truth) -> Assignment``. This one uses predicted boxes: if they are
the teacher's, the assignment is distilled. Takes some twenty seconds on a CPU::

    python examples/own_assigner.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning_fabric import Fabric

from ladle import FrozenDetector, Lesson, TrainingStep, load_detector, save_detector
from ladle.assigners.protocol import full_precision
from ladle.criteria import DenseCriterion
from ladle.data.loader import make_loader
from ladle.data.scenes import split_scenes
from ladle.engine import AdamW, Settings, fit
from ladle.families import detector_spec
from ladle.lessons import TeacherJudges
from ladle.overlaps import best_overlaps, outside_crowds
from ladle.recipes.demo import teacher_file
from ladle.testing import ASSIGNER_LAWS
from ladle.types import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class NearlyBest:
    """A prior learns the object its predicted box overlaps most, if nearly as much as that object's best prior does.

    Args:
        share: least share of the best IoU that any prior has with the object.
    """

    share: float = 0.8

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by overlap alone."""
        overlap = best_overlaps(predictions.boxes.nan_to_num(), priors.valid, truth)
        # One more column, so that gather also works for a batch without objects.
        best = torch.nn.functional.pad(overlap.peak, (0, 1)).gather(1, overlap.index)
        positive = (overlap.iou > 0) & (overlap.iou >= self.share * best)
        return Assignment.hard(overlap.index, positive, outside_crowds(priors, truth, share=0.5))


def main(epochs: int = 2, images: int = 64, laws: Sequence[Callable[..., None]] = ASSIGNER_LAWS) -> list[float]:
    """Run the laws, distill for some epochs, and return the mean box loss of each."""
    assigner = NearlyBest()
    for law in laws:
        law(assigner)
        print("obeys:", law.__name__.replace("_", " "))

    torch.manual_seed(0)
    scenes, _ = split_scenes(train=images, val=1, size=96)
    teacher = load_detector(teacher_file())
    objective = TrainingStep(
        detector_spec("paa-tiny", scenes.classes, imgsz=96).build(),
        [Lesson(assigner, DenseCriterion(share="count"), judge=TeacherJudges())],
        teacher=FrozenDetector(teacher, scenes.classes),
    )
    loader = make_loader(scenes, batch=8, imgsz=96, shuffle=True, drop_last=True)
    settings = Settings(epochs=epochs, optimizer=AdamW(lr=0.003), quiet=True)
    with TemporaryDirectory() as folder:
        result = fit(Fabric(accelerator="cpu"), objective, loader, settings, Path(folder), None, save_detector)
    for row in result.rows:
        print(
            f"epoch {row['epoch']}: box {row['loss/box']:.3f}, {row['positives_per_object']:.1f} positives per object"
        )
    return [float(row["loss/box"]) for row in result.rows]


if __name__ == "__main__":
    main()
