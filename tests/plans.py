"""Plans from the words and the flags of a command line."""

from ladle.families import lessons_of
from ladle.methods import pair_of
from ladle.methods import plan_of as apply
from ladle.recipes.jobs import Job
from ladle.recipes.parts import parts_of


def plan_of(method, student, teacher=None, assigner=None, **flags):
    """The plan of a method in words, for two specs."""
    parts = parts_of(Job("distill", "scenes", student.name, method=method, assigner=assigner, **flags))
    pair = pair_of(student, teacher) if teacher is not None else None
    return apply(parts.method, lessons_of(student, parts.assigner), pair, method)
