"""``ladle``: one verb per recipe, one flag per argument.

The verbs are known here without importing anything heavy; a verb's own flags are read off its recipe when it is called.
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
    "demo": "teach one small student three ways on the built-in scenes and compare",
    "train": "train a detector on ground truth",
    "distill": "train a detector with a teacher",
    "colearn": "train two detectors together, without a teacher",
    "val": "score a trained detector",
    "predict": "find objects in images",
    "assign show": "draw which prior learns which object, the worst objects first",
    "assign stats": "count who learns what and who learns nothing",
    "assign diff": "compare two assignments",
    "export": "write a trained detector as ONNX or .pt2, checked against PyTorch",
    "bench": "measure what detectors cost: parameters, time, memory",
    "check": "tell whether a data set is fit to train on",
    "models": "list the detectors, the methods and the assigners",
}
"""What ``ladle`` can do; a verb of two words is typed as two."""

_RUNS = ("train", "distill", "colearn")
"""The verbs whose flags include those of :class:`ladle.recipes.Run`."""
_BARE = {"predict": "source", "check": "data", "export": "model", "bench": "model"}
"""The argument that a verb takes without its flag."""
_SEVERAL = ("predict", "bench")
"""The verbs that take several such arguments: a shell makes them of one pattern."""
_ALSO = {"train": {"student": "model"}, "bench": {"compare": "model"}}
"""Other names of a verb's flags: what learns is the student elsewhere."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch tells that there is none left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after one sentence on standard error where the user gave something wrong."""
    if arguments is not None:
        return _answer(list(arguments))
    be_patient()
    code, lost = _answer(sys.argv[1:]), what_was_lost()
    if lost is not None:
        _complain("not all that was said could be written", lost)
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
        return _complain(name, sentence)


def _verb_of(words: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or of two, and the words behind it."""
    long = " ".join(words[:2])
    return (long, words[2:]) if long in VERBS else (words[0], words[1:])


def _sentence(error: Exception) -> str | None:
    """What to say of an error that is not the program's own fault; None of any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None)
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return "memory ran out: take a smaller --batch, smaller images or fewer --workers"
    return None


def _complain(verb: str, sentence: str) -> int:
    """One line on standard error, whatever is in the names that it quotes."""
    line = f"ladle {verb}: {sentence}"
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)  # noqa: T201
    return 2


def _help(shown: Sequence[str] = tuple(VERBS)) -> str:
    width = max(map(len, shown))
    verbs = "\n".join(f"  {verb:<{width}}  {VERBS[verb]}" for verb in shown)
    return f"usage: ladle VERB [--help] [flags]\n\nDistil label assignment into small object detectors.\n\n{verbs}"


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
        own = {field.name for field in fields(recipes.Run)}
        given["run"] = recipes.Run(**{key: given.pop(key) for key in list(given) if key in own})
    outcome = recipe(**given)
    return 2 if (name == "check" and outcome.fatal) or (name == "predict" and outcome.damaged) else 0


def _check_not_running(words: list[str]) -> None:
    """Refuse at once to resume a run that is still running: by the time all is imported it could have ended."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, _, folder = word.removeprefix("--").partition("=")
        if name == "resume":
            check_free(Path(folder or following))


def _verb(name: str, recipe: Callable[..., Any]) -> Verb:
    """The arguments of a recipe, and where it makes a run those of a run."""
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
    """All flags of a verb with the values that they would have, as ``--config`` reads them."""
    import yaml

    from ladle.cli.flags import NEEDED

    values = {
        key: given.get(key, None if one.default is NEEDED else one.default) for key, one in verb.arguments.items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _parser(name: str, recipe: Callable[..., Any]) -> ArgumentParser:
    """What explains the flags; it does not read them."""
    from argparse import SUPPRESS

    from jsonargparse import ArgumentParser

    from ladle.recipes import Run

    parser = ArgumentParser(prog=f"ladle {name}", description=VERBS[name], exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file of flags; flags on the command line win")
    parser.add_function_arguments(recipe, skip={"run"}, as_group=False)
    if name in _RUNS:
        parser.add_class_arguments(Run, as_group=False)
    for action in parser._actions:
        if action.dest.endswith(".help"):  # of flags that take values in Python; it is not read here
            action.help = SUPPRESS
    return parser
