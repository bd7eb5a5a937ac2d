"""``ladle``: one verb per recipe, one flag per argument.

The verbs are known here without importing anything heavy; a verb's own flags are read off its recipe when it is called.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, get_type_hints

from ladle.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["VERBS", "main"]

VERBS = {
    "demo": "teach one small student three ways on the built-in scenes and compare",
    "train": "train a detector on ground truth",
    "distill": "train a detector with a teacher",
    "val": "score a trained detector",
    "predict": "find objects in pictures",
    "check": "tell whether a data set is fit to train on",
    "models": "list the detectors",
}
"""What ``ladle`` can do."""

_RUNS = ("train", "distill")
"""The verbs whose flags include those of :class:`ladle.recipes.Run`."""
_BARE = {"predict": "source", "check": "data"}
"""The argument that a verb takes without its flag."""


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
    parser = _parser(verb, recipe)
    try:
        values = parser.parse_args(_spelled(verb, words, _switches(recipe, verb)))
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error), parser)) from None
    given = dict(vars(parser.instantiate_classes(values)))
    del given["config"]
    if verb in _RUNS:
        own = {field.name for field in fields(recipes.Run)}
        given["run"] = recipes.Run(**{name: given.pop(name) for name in own})
    outcome = recipe(**given)
    return 2 if verb == "check" and outcome.fatal else 0


def _parser(verb: str, recipe: Callable[..., Any]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    from ladle.recipes import Run

    parser = ArgumentParser(prog=f"ladle {verb}", description=VERBS[verb], exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file of flags; flags on the command line win")
    parser.add_function_arguments(recipe, skip={"run"}, as_group=False)
    if verb in _RUNS:
        parser.add_class_arguments(Run, as_group=False)
    return parser


def _spelled(verb: str, words: Sequence[str], switches: set[str]) -> list[str]:
    """Every accepted spelling brought to one: ``key=value``, dashes in names, switches without a value."""
    bare = _BARE.get(verb)
    if bare is not None and words and not words[0].startswith("-") and not _is_assignment(words[0]):
        words = [f"--{bare}", *words]
    spelled = []
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        flag, equals, value = (f"--{word}" if _is_assignment(word) else word).partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
            if flag[2:] in switches and not equals and following.startswith("-"):
                equals, value = "=", "true"
        spelled.append(flag + equals + value)
    return spelled


def _switches(recipe: Callable[..., Any], verb: str) -> set[str]:
    from ladle.recipes import Run

    hints = get_type_hints(recipe) | (get_type_hints(Run) if verb in _RUNS else {})
    return {name for name, hint in hints.items() if hint is bool}


def _is_assignment(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


def _one_sentence(message: str, parser: ArgumentParser) -> str:
    """What was wrong with the flags, with the flag that was probably meant."""
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    sentence = re.sub(r'Parser key "(\w+)":', r"--\1:", " ".join(message.split()))
    sentence = re.sub(r"<class '(\w+)'>", r"\1", sentence)
    for word in sentence.replace("=", " ").split():
        if word.startswith("--") and word.rstrip(':') not in flags:
            close = get_close_matches(word, flags, n=1)
            hint = f"did you mean {close[0]}?" if close else f"`{parser.prog} --help` lists the flags"
            return f"there is no flag {word}; {hint}"
    return f"{sentence} (`{parser.prog} --help` explains the flags)"
