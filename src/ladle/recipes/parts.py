"""Conversion of text from the command line, YAML and ``config.yaml`` to the values of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from ladle import assigners, criteria, distillers
from ladle.assigners import Assigner
from ladle.data.samples import Sample
from ladle.data.sources import Source, Splits
from ladle.detectors import DetectorSpec, read_spec
from ladle.distillers import Distiller, Method
from ladle.errors import UserError
from ladle.families import families
from ladle.lessons import Criterion, Scheduled
from ladle.limits import shortened
from ladle.methods import LAD, WORDS, Published, TeacherOnly
from ladle.methods.words import JUDGING, check_words, part_name, published, unscheduled
from ladle.recipes.jobs import OBJECT, Job
from ladle.recipes.opened import OpenedTeacher
from ladle.teachers import Teacher
from ladle.testing import example_scene
from ladle.values import Kind, named, offered, split_sum, text_of, value_of, with_fields

__all__ = [
    "ASSIGNER",
    "ASSIGNERS",
    "CRITERION",
    "METHOD",
    "Parts",
    "assigner_of",
    "criterion_of",
    "given_parts",
    "method_of",
    "name_of_student",
    "of_family",
    "parts_of",
    "text_of_method",
    "text_of_object",
    "text_of_part",
]

ASSIGNER = Kind(
    "--assigner",
    "assigner",
    offered(assigners, "__call__", ["predictions", "priors", "truth"]),
    "PAA(topk=13)",
    {"SimD": assigners.SimD},
)
"""What --assigner takes."""
CRITERION = Kind(
    "--criterion",
    "criterion",
    offered(criteria, "__call__", ["output", "truth", "assignment"]),
    "DenseCriterion(box_weight=2.0)",
)
"""What --criterion takes."""
METHOD = Kind(
    "--method",
    "method",
    offered(distillers, "summarize") | {"LAD": LAD, "TeacherOnly": TeacherOnly, "Scheduled": Scheduled},
    "lad+PKD(weight=2.0)",
)
"""What --method takes in addition to words."""
ASSIGNERS: dict[str, Assigner] = {name: one() for name, one in ASSIGNER.classes.items()}
"""Every assigner of ``ladle.assigners`` by the name of its class, with its default settings."""


AUTO = "auto"
"""The weight of a distiller that follows the ratio of gradient norms."""


class Parts(NamedTuple):
    """The values of a run; None stands for the detector's default or for the file that the job names.

    ``foreign`` is the teacher of another origin that the job names, once the classes of the data are known.
    """

    method: Method = Method()
    assigner: Assigner | None = None
    criterion: Criterion | None = None
    student: DetectorSpec | None = None
    teacher: Teacher | None = None
    data: Splits | None = None
    foreign: OpenedTeacher | None = None


def given_parts(
    *,
    data: object = None,
    student: object = None,
    teacher: object = None,
    method: object = None,
    assigner: object = None,
    criterion: object = None,
) -> Parts:
    """The arguments of a recipe that are values; :func:`parts_of` handles those that are text.

    Raises :class:`UserError` for a value that is neither text nor what its argument takes.
    """
    takes = {"data": Splits, "student": DetectorSpec, "teacher": Teacher, "assigner": Assigner, "criterion": Criterion}
    given = {"data": data, "student": student, "teacher": teacher, "assigner": assigner, "criterion": criterion}
    values: dict[str, Any] = {name: one for name, one in given.items() if one is not None and not isinstance(one, str)}
    for name, value in values.items():
        if isinstance(value, type) or not isinstance(value, takes[name]):
            raise UserError(f"{name} takes text or a {takes[name].__name__}, found {shortened(value)}")
    if isinstance(data, Splits):
        _check_splits(data)
    return Parts(method=_summed(method), **values)


def _summed(method: object) -> Method:
    if method is None or isinstance(method, str):
        return Method()
    made = method if isinstance(method, Method) else Method((method,))
    wrong = [one for one in made.parts if not isinstance(one, LAD | TeacherOnly | Published | Scheduled | Distiller)]
    if wrong or isinstance(method, type):
        raise UserError(
            f"method takes text, or a sum such as LAD() + PKD(), found {shortened(wrong[0] if wrong else method)}; a "
            "distiller has summarize, build, features_only and every_stage"
        )
    return made


def _check_splits(data: Splits) -> None:
    """Raise :class:`UserError` for custom data that cannot be trained on."""
    for name, split in zip(data._fields, data, strict=True):
        if not isinstance(split, Source):
            raise UserError(
                f"data.{name}: expected classes, category_ids, __len__ and sample, found {shortened(split)}"
            )
        if len(split) == 0:
            raise UserError(f"data.{name} is empty: expected at least one image")
        if not isinstance(split.sample(0), Sample):
            found = shortened(split.sample(0))
            raise UserError(f"data.{name}.sample(0): expected a ladle.data.Sample, found {found}")
    if data.train.classes != data.val.classes:
        raise UserError(
            f"data: train has the classes {', '.join(data.train.classes)}, val {', '.join(data.val.classes)}"
        )


def text_of_part(kind: Kind, value: object) -> str | None:
    """The text of an argument: text unchanged, an assigner or a criterion written as text."""
    return value if value is None or isinstance(value, str) else text_of(kind, value)


def text_of_object(value: object) -> str:
    """The text of an argument that cannot be written as text, as a run folder stores it."""
    return value if isinstance(value, str) else f"{OBJECT}{type(value).__name__}"


def parts_of(job: Job, given: Parts | None = None, again: Collection[str] | None = None) -> Parts:
    """The values for the texts of a job, except for those that are ``given``.

    ``again`` are the flags that were given together with ``--resume``: nothing is imported for other flags.
    """
    given = given if given is not None else Parts()
    objects = (("data", job.data, given.data), ("student", job.student, given.student))
    for flag, text, value in (*objects, ("teacher", job.teacher, given.teacher)):
        if value is None and text is not None and text.startswith(OBJECT):
            raise UserError(
                f"--{flag} {text}: this run was begun in Python with an object: go on with it there, and give it again"
            )
    parts = given
    if parts.student is None and job.initial is not None:
        parts = parts._replace(student=read_spec(job.initial))
    name = name_of_student(job, parts)
    if not parts.method.parts:
        parts = parts._replace(method=method_of(job.method, again is None or "method" in again))
    if parts.assigner is None and job.assigner is not None:
        text = of_family(job.assigner, name, ASSIGNER)
        parts = parts._replace(assigner=assigner_of(text, again is None or "assigner" in again))
    if parts.criterion is None and job.criterion is not None:
        text = of_family(job.criterion, name, CRITERION)
        parts = parts._replace(criterion=criterion_of(text, again is None or "criterion" in again))
    return parts._replace(method=_with_flags(parts.method, job))


def name_of_student(job: Job, parts: Parts) -> str:
    """The name of the student, or of the first of two; also if it is given as a spec or as weights to start from."""
    return job.student if parts.student is None else parts.student.name


def of_family(text: str, student: str, kind: Kind) -> str:
    """Add the class of the student's family to a text of fields alone, such as ``(topk=13)``."""
    family = families().get(student.partition("-")[0].partition("+")[0])
    if not text.startswith("(") or family is None:
        return text
    usual: object = family.assigner if kind is ASSIGNER else family.criterion
    return text_of(kind, with_fields(kind, usual, text, f"{type(usual).__name__}{text}"))


def assigner_of(text: str, imports: bool = True, flag: str = "--assigner") -> Assigner:
    """The assigner given by ``text``, such as ``PAA``, ``paa`` or ``PAA(topk=13, pool=MaxIoU(0.2, 0.2))``.

    Raises :class:`UserError`, which names ``flag``, for an unknown name or field, and for an assigner that assigns
    nothing.
    """
    assigner = value_of(ASSIGNER._replace(flag=flag), text, imports)
    try:
        serves = bool(assigner(*example_scene()).positive.any())
    except Exception as error:  # contradicting values can raise any exception
        raise UserError(f"{flag} {text} does not work: {' '.join(str(error).split())[:200]}") from None
    if not serves:
        raise UserError(f"{flag} {text} does not work: in a scene full of objects no prior learns any")
    return cast(Assigner, assigner)


def criterion_of(text: str, imports: bool = True) -> Criterion:
    """The criterion given by ``text``, optionally with fields: ``DenseCriterion(box_weight=3.0)``."""
    criterion = value_of(CRITERION, text, imports)
    if not isinstance(criterion, Criterion):
        raise UserError(f"--criterion {text}: expected a callable of an output, the truth and an assignment")
    return criterion


def method_of(text: str, imports: bool = True) -> Method:
    """The method given by ``text``: words, classes of distillers and ``module:Name``, joined by ``+``.

    A word may also have fields: ``lad+pkd(weight=2)`` overrides the published weight.
    """
    texts = split_sum(text)
    named_parts = [_part(text, part) for part in texts]
    check_words(text, [name for name, _ in named_parts if not _is_class(name)])
    parts: list[object] = []
    for (name, fields), part in zip(named_parts, texts, strict=True):
        parts += published(name, fields) if name in WORDS else (value_of(METHOD, part, imports),)
    return Method(tuple(parts))


def _part(text: str, part: str) -> tuple[str, str]:
    """The name of a part and the expression of its fields, which may be empty."""
    return named(METHOD._replace(flag=f"--method {text}:"), part) if "(" in part or ":" in part else (part, "")


def _is_class(name: str) -> bool:
    if ":" in name:
        return True
    known = {one.lower() for one in METHOD.classes}
    return name not in WORDS and name.replace("-", "").replace("_", "").lower() in known


def text_of_method(method: Method) -> str:
    """The text from which :func:`method_of` makes the same method."""
    return "+".join(_text_of_part(part) for part in method.parts) or "plain"


def _text_of_part(part: object) -> str:
    return f"{part.word}{part.fields}" if isinstance(part, Published) else text_of(METHOD, part)


def _with_flags(method: Method, job: Job) -> Method:
    """The method with the weights and schedules that the flags of a job give to its parts."""
    names = [one for one in map(_name, method.parts) if one is not None]
    schedule: dict[str, dict[str, float | str]] = {name: {} for name in names}
    for flag, field, text in (
        ("weight", "weight", job.weight),
        ("warm", "warmup", job.warm),
        ("until", "until", job.until),
    ):
        if text is not None and not names:
            raise UserError(f"--{flag} {text}: by --method {job.method} nothing is distilled; leave it out, or add pkd")
        for name, number in _numbers(flag, text, names):
            schedule[name][field] = number
    for name, values in schedule.items():
        if values.get("weight") == AUTO and "warmup" in values:
            raise UserError(
                f"--warm {job.warm}: the --weight auto of {name} follows the gradients from the start; leave one out"
            )
    judging: dict[str, Any] = {"keep_count": job.keep_count, "class_power": job.class_power}
    judging |= {"until": job.judge_until, "after": job.judge_after}
    usual = LAD()
    judging = {name: value for name, value in judging.items() if value != getattr(usual, name)}
    if judging and not any(map(_judges, method.parts)):
        raise UserError(
            f"--method {job.method}: the teacher judges nothing, so leave out --keep_count, --class_power, "
            "--judge_until and --judge_after, or add lad"
        )
    return Method(tuple(_flagged(part, judging, schedule.get(_name(part) or "", {})) for part in method.parts))


def _judges(part: object) -> bool:
    return isinstance(part, LAD) or (isinstance(part, Published) and part.word in JUDGING)


def _name(part: object) -> str | None:
    """The name of a distiller in flags such as ``--weight``; None for other parts."""
    distilled = isinstance(part, Published) or isinstance(unscheduled(part), Distiller)
    return part_name(part) if distilled and not _judges(part) else None


def _flagged(part: Any, judging: dict[str, Any], schedule: dict[str, float | str]) -> object:
    if _judges(part):
        if isinstance(part, LAD):
            return replace(part, **judging)
        return replace(part, changes=judging) if judging else part
    if not schedule:
        return part
    if isinstance(part, Published):
        return replace(part, schedule=schedule)
    times: dict[str, Any] = dict(schedule)
    return replace(part if isinstance(part, Scheduled) else Scheduled(part), **times)


def _numbers(flag: str, text: str | None, names: Sequence[str]) -> list[tuple[str, float | str]]:
    """The numbers of a flag by the names of parts: one for all, or ``pkd=2,ld=0.5``; a weight may be ``auto``."""
    if text is None:
        return []
    given = [part.partition("=") for part in str(text).split(",")]
    if len(given) == 1 and not given[0][1]:
        given = [(name, "=", given[0][0]) for name in names]
    found: list[tuple[str, float | str]] = []
    for name, _, number in given:
        if name not in names:
            expected = f"one of {', '.join(names)}" if names else "a method with a distiller"
            raise UserError(f"--{flag} {text}: {name!r} is no part of this --method; expected {expected}")
        found.append((name, AUTO if flag == "weight" and number == AUTO else _number(flag, text, name, number)))
    return found


def _number(flag: str, text: str, name: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        more = " or auto" if flag == "weight" else ""
        raise UserError(f"--{flag} {text}: expected a number of 0 or more{more} for {name}, found {number!r}")
    return value
