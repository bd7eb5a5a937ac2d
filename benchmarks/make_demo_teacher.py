"""Train the teacher of the built-in scenes that is included in the package.

    python benchmarks/make_demo_teacher.py

About fifteen minutes on two cores. The weights are stored in float16.
"""

from ladle import Run, load_detector, save_detector, train
from ladle.recipes.demo import teacher_file

RUN = Run(epochs=12, lr=0.003, jitter=0.0, crop=0.0, eval_every=2, name="scenes-teacher")

if __name__ == "__main__":
    best = train("scenes:3000", "paa-small", RUN)
    save_detector(load_detector(best.weights), teacher_file(), half=True)
    print(f"{teacher_file().name}: {best.evaluation.row()}, {teacher_file().stat().st_size / 1e6:.1f} MB")
