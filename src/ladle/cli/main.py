"""``ladle``: one verb per recipe, one flag per argument.

The verbs are known here without importing anything heavy; a verb's own flags are read off its recipe when it is called.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ladle.cli.words import ALONE, is_assignment, part_words
from ladle.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "teach one small student three ways on the built-in scenes and compare",
    "train": "train a detector on ground truth",
    "distill": "train a detector with a teacher",
    "colearn": "train two detectors together, without a teacher",
    "val": "score a trained detector",
    "predict": "find objects in pictures",
    "check": "tell whether a data set is fit to train on",
    "models": "list the detectors, the methods and the assigners",
}
"""What ``ladle`` can do."""

_RUNS = ("train", "distill", "colearn")
"""The verbs whose flags include those of :class:`ladle.recipes.Run`."""
_BARE = {"predict": "source", "check": "data"}
"""The argument that a verb takes without its flag."""
_SEVERAL = ("predict",)
"""The verbs that take several such arguments: a shell makes them of one pattern."""
_ALSO = {"train": {"student": "model"}}
"""Other names of a verb's flags: what learns is the student elsewhere."""
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after one sentence on standard error where the user gave something wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())  # noqa: T201
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"ladle {version('ladle')}")  # noqa: T201
        return 0
    try:
        return _run(words[0], words[1:])
    except UserError as error:
        print(f"ladle {words[0]}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"ladle {words[0]}: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {meaning}" for verb, meaning in VERBS.items())
    return f"usage: ladle VERB [--help] [flags]\n\nDistil label assignment into small object detectors.\n\n{verbs}"


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        close = get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean `ladle {close[0]}`?" if close else f"expected one of {', '.join(VERBS)}"
        raise UserError(f"there is no such verb; {hint}")
    from argparse import ArgumentError

    from ladle import recipes

    recipe: Callable[..., Any] = getattr(recipes, verb)
    parser, hints = _parser(verb, recipe), _hints(verb, recipe)
    switches = {name for name, hint in hints.items() if hint is bool}
    bare, found = _BARE.get(verb), list[str]()
    if bare is not None:
        found, words = part_words(words, bare, verb in _SEVERAL, hints)
    try:
        values = parser.parse_args([*(f"--{bare}={word}" for word in found[:1]), *_spelled(verb, words, switches)])
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error), parser, hints)) from None
    given = dict(vars(parser.instantiate(values)))
    del given["config"]
    if bare is not None and found:  # as they were typed: where a list may stand the parser reads YAML
        given[bare] = found if len(found) > 1 else found[0]
    if verb in _RUNS:
        own = {field.name for field in fields(recipes.Run)}
        given["run"] = recipes.Run(**{name: given.pop(name) for name in own})
    outcome = recipe(**given)
    return 2 if (verb == "check" and outcome.fatal) or (verb == "predict" and outcome.damaged) else 0


def _parser(verb: str, recipe: Callable[..., Any]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    from ladle.recipes import Run

    parser = ArgumentParser(prog=f"ladle {verb}", description=VERBS[verb], exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file of flags; flags on the command line win")
    parser.add_function_arguments(recipe, skip={"run"}, as_group=False)
    if verb in _RUNS:
        parser.add_class_arguments(Run, as_group=False)
    return parser


def _hints(verb: str, recipe: Callable[..., Any]) -> dict[str, Any]:
    from ladle.recipes import Run

    return get_type_hints(recipe) | (get_type_hints(Run) if verb in _RUNS else {})


def _spelled(verb: str, words: Sequence[str], switches: set[str]) -> list[str]:
    """Every accepted spelling as ``--name=value``: ``name=value``, dashes in names, switches."""
    rest, spelled = deque(words), []
    while rest:
        word = rest.popleft()
        if is_assignment(word):
            word = f"--{word}"
        if not word.startswith("--"):
            spelled.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        name = _ALSO.get(verb, {}).get(name, name)
        if not equals and name in switches:
            equals, value = "=", rest.popleft() if rest and rest[0] in ("true", "false") else "true"
        elif not equals and name not in ALONE and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.popleft()
        spelled.append(f"--{name}{equals}{value}")
    return spelled


def _one_sentence(message: str, parser: ArgumentParser, hints: dict[str, Any]) -> str:
    """What was wrong with the flags, with the flag that was probably meant."""
    message = " ".join(message.split())
    wrong = re.search(r'Parser key "(\w+)":.*(?:Got|Given) value: (.*)', message)
    if wrong is not None and wrong[1] in hints:
        return f"--{wrong[1]} takes {_kind(hints[wrong[1]])}, found {wrong[2]}"
    missing = re.search(r"arguments are required: (.*)", message)
    if missing is not None:
        return f"give {' and '.join('--' + name for name in missing[1].split(', '))} (`{parser.prog} --help`)"
    unknown = re.search(r"unrecognized arguments:.* ?--([\w.]+)|Option '([\w.]+)' is not accepted", message)
    if unknown is not None:
        name = unknown[1] or unknown[2]
        close = get_close_matches(name, hints, n=1)
        hint = f"did you mean --{close[0]}?" if close else f"`{parser.prog} --help` lists the flags"
        return f"there is no flag --{name}; {hint}"
    return f"{message} (`{parser.prog} --help` explains the flags)"


def _kind(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    kinds = [_kind(part) for part in get_args(hint) if part is not type(None)]
    return " or ".join(kinds) or _WORDS.get(hint, str(hint))
