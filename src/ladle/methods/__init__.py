"""Distillation methods, as a sum of values such as ``LAD() + PKD()`` or as words such as ``lad+pkd``."""

from ladle.distillers import Method
from ladle.lessons import Scheduled
from ladle.methods.lad import LAD, TeacherOnly
from ladle.methods.plan import Plan, plan_for, plan_of
from ladle.methods.words import WORDS, Pair, Published, Word, method_of_words, pair_of

__all__ = [
    "LAD",
    "WORDS",
    "Method",
    "Pair",
    "Plan",
    "Published",
    "Scheduled",
    "TeacherOnly",
    "Word",
    "method_of_words",
    "pair_of",
    "plan_for",
    "plan_of",
]
