"""``ladle``: one verb per recipe, one flag per argument.

The verbs are listed here without importing torch; the flags of a verb are read from its recipe when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladle.errors import UserError
from ladle.locks import check_free
from ladle.streams import be_patient, what_was_lost

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ladle.cli.flags import Verb

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "train one small student with three methods on the built-in scenes and compare",
    "train": "train a detector on ground truth",
    "distill": "train a detector with a teacher",
    "colearn": "train two detectors together, without a teacher",
    "val": "evaluate a trained detector",
    "predict": "detect objects in images",
    "report": "write one page about a run, or several beside each other",
    "push": "upload the best weights of a run, with a model card, to the Hugging Face Hub",
    "assign show": "draw which prior learns which object, the worst objects first",
    "assign stats": "count the positives of objects, and the objects without any",
    "assign diff": "compare two assignments",
    "teacher probe": "measure what a teacher of any origin gives: classes, AP, speed",
    "teacher cache": "record what a teacher finds, to train without running it",
    "convert": "turn a public checkpoint into a detector",
    "export": "write a trained detector as ONNX or .pt2, checked against PyTorch",
    "bench": "measure the cost of detectors: parameters, time, memory",
    "check": "check a data set before training",
    "models": "list the detectors, the methods and the assigners",
}
"""The verbs and their descriptions; a verb of two words is typed as two words."""

_RUNS = ("train", "distill", "colearn")
"""The verbs whose flags include those of :class:`ladle.recipes.Run`."""
_BARE = {
    "predict": "source",
    "check": "data",
    "report": "runs",
    "push": "folder",
    "convert": "checkpoint",
    "export": "model",
    "bench": "model",
    "teacher probe": "teacher",
    "teacher cache": "teacher",
}
"""The argument of a verb whose flag may be left out."""
_SEVERAL = ("predict", "report", "bench")
"""The verbs that take several values of this argument: a shell expands a pattern to them."""
_ALSO = {
    "train": {"student": "model"},
    "distill": {"unlabeled": "unlabelled", "unlabeled_score": "unlabelled_score"},
    "bench": {"compare": "model"},
}
"""Other names of a verb's flags, such as ``--student`` for ``--model`` of ``train``."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of torch's error messages when memory runs out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after a mistake of the user, with one sentence on standard error."""
    if arguments is not None:
        return _answer(list(arguments))
    be_patient()
    code, lost = _answer(sys.argv[1:]), what_was_lost()
    if lost is not None:
        _print_error("not all output could be written", lost)
    return code or (0 if lost is None else 2)


def _answer(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())  # noqa: T201
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"ladle {version('ladle')}")  # noqa: T201
        return 0
    name, rest = _verb_of(words)
    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        return 130
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        return _print_error(name, sentence)


def _verb_of(words: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or of two, and the words after it."""
    long = " ".join(words[:2])
    return (long, words[2:]) if long in VERBS else (words[0], words[1:])


def _sentence(error: Exception) -> str | None:
    """The message for an error that is not a bug of the program; None for any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None)
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return "memory ran out: take a smaller --batch, smaller images or fewer --workers"
    return None


def _print_error(verb: str, sentence: str) -> int:
    """Print one line on standard error, with control characters escaped."""
    line = f"ladle {verb}: {sentence}"
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)  # noqa: T201
    return 2


def _help(shown: Sequence[str] = tuple(VERBS)) -> str:
    width = max(map(len, shown))
    verbs = "\n".join(f"  {verb:<{width}}  {VERBS[verb]}" for verb in shown)
    return f"usage: ladle VERB [--help] [flags]\n\nDistill label assignment into small object detectors.\n\n{verbs}"


def _run(name: str, words: list[str]) -> int:
    kinds = [verb for verb in VERBS if verb.startswith(f"{name} ")]
    if kinds and words[:1] in (["-h"], ["--help"]):
        print(_help(kinds))  # noqa: T201
        return 0
    if kinds:
        raise UserError(f"expected one of {', '.join(f'`ladle {kind}`' for kind in kinds)}")
    if name not in VERBS:
        close = get_close_matches(name, VERBS, n=1)
        hint = f"did you mean `ladle {close[0]}`?" if close else f"expected one of {', '.join(VERBS)}"
        raise UserError(f"there is no such verb; {hint}")
    if name in _RUNS:
        _check_not_running(words)
    from ladle import recipes
    from ladle.cli.flags import check_complete, read_flags

    recipe: Callable[..., Any] = getattr(recipes, name.replace(" ", "_"))
    flags = words[: words.index("--")] if "--" in words else words
    if "--help" in flags or "-h" in flags:
        _parser(name, recipe).print_help()
        return 0
    verb = _verb(name, recipe)
    given = read_flags(verb, words)
    if "--print_config" in flags or "--print-config" in flags:
        print(_config(verb, given), end="")  # noqa: T201
        return 0
    check_complete(verb, given)
    if given.get("resume") is not None:
        recipes.runs.resume_run(name, given.pop("resume"), given)
        return 0
    if name in _RUNS:
        of_run = {field.name for field in fields(recipes.Run)}
        given["run"] = recipes.Run(**{key: given.pop(key) for key in list(given) if key in of_run})
    outcome = recipe(**given)
    return 2 if (name == "check" and outcome.fatal) or (name == "predict" and outcome.damaged) else 0


def _check_not_running(words: list[str]) -> None:
    """Raise an error for a run that is still running before the imports, during which it could end."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, _, folder = word.removeprefix("--").partition("=")
        if name == "resume":
            check_free(Path(folder or following))


def _verb(name: str, recipe: Callable[..., Any]) -> Verb:
    """The arguments of a recipe, with those of :class:`ladle.recipes.Run` if it trains."""
    from ladle.cli.flags import Argument, Verb
    from ladle.limits import hints_of
    from ladle.recipes import Run

    makers = (recipe, Run) if name in _RUNS else (recipe,)
    arguments = {
        key: Argument(hints_of(maker)[key], one.default)
        for maker in makers
        for key, one in signature(maker).parameters.items()
        if key != "run"
    }
    return Verb(name, arguments, _BARE.get(name), name in _SEVERAL, _ALSO.get(name, {}))


def _config(verb: Verb, given: dict[str, Any]) -> str:
    """All flags of a verb with their values, in the format of ``--config``."""
    import yaml

    from ladle.cli.flags import NEEDED

    values = {
        key: given.get(key, None if one.default is NEEDED else one.default) for key, one in verb.arguments.items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _parser(name: str, recipe: Callable[..., Any]) -> ArgumentParser:
    """The parser that prints the help; it does not parse the flags."""
    from argparse import SUPPRESS

    from jsonargparse import ArgumentParser

    from ladle.recipes import Run

    parser = ArgumentParser(prog=f"ladle {name}", description=VERBS[name], exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file of flags; flags on the command line override it")
    parser.add_function_arguments(recipe, skip={"run"}, as_group=False)
    if name in _RUNS:
        parser.add_class_arguments(Run, as_group=False)
    for action in parser._actions:
        if action.dest.endswith(".help"):  # added for flags that take values in Python; not supported here
            action.help = SUPPRESS
    return parser
