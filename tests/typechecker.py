"""The run-time checker of the tests: beartype for types and jaxtyping for shapes, at the first calls in each test.

Checking a call takes longer than most functions do. So functions are checked whose annotations state shapes, of which
mypy knows nothing, at their first calls in each test; later calls in the same test, such as those of a training loop,
are not.
"""

import random
import re
from dataclasses import is_dataclass
from functools import partial, wraps
from inspect import isclass
from unittest.mock import patch

import jaxtyping

SHAPED = re.compile(r"\b(Bool|Float(32)?|Int|UInt(8|16)|Num)\[")
MOST = 4
"""Calls of a function that are checked in one test."""


def _checker():
    """beartype that takes an int where a float is asked for, as type checkers do.

    It looks at a random element of a list, with the generator that is there when its modules are imported. The global
    one would change what training draws.
    """
    with patch("random.getrandbits", random.Random(0).getrandbits):
        from beartype import BeartypeConf, beartype

        checker = beartype(conf=BeartypeConf(is_pep484_tower=True))

        @checker
        def imports_everything(some: list[int]) -> list[int]:
            return some

        imports_everything([0])
    return checker


checked = _checker()

_calls: dict[str, int] = {}
_check_all = jaxtyping.jaxtyped


def install():
    """Check the package ``ladle``, which must not be imported yet."""
    jaxtyping.jaxtyped = lambda *, typechecker: partial(_sampled, typechecker=typechecker)
    jaxtyping.install_import_hook("ladle", f"{__name__}.checked")


def begin_test():
    """Count calls from nought again."""
    _calls.clear()


def _sampled(target, typechecker):
    """A function, method, property or dataclass of which the first calls in each test are checked."""
    again = partial(_sampled, typechecker=typechecker)
    if isclass(target):
        if is_dataclass(target):
            target.__init__ = again(target.__init__)
        return target
    if isinstance(target, classmethod | staticmethod):
        return type(target)(again(target.__func__))
    if isinstance(target, property):
        return property(*(part and again(part) for part in (target.fget, target.fset, target.fdel)), target.__doc__)
    return _first_calls(target, typechecker) if _states_shapes(target) else target


def _states_shapes(function):
    """Whether an annotation has a shape, such as ``Float[Tensor, "B P"]``; annotations are texts in this package."""
    return any(SHAPED.search(str(annotation)) for annotation in function.__annotations__.values())


def _first_calls(function, typechecker):
    from torch.compiler import is_compiling  # here, where PyTorch has been imported in any case

    # An inner function is a new one at each call of the outer one, but its place is the same.
    place, ready = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}", None

    @wraps(function)
    def call(*args, **kwargs):
        nonlocal ready
        if is_compiling():  # the checker cannot be traced
            return function(*args, **kwargs)
        seen = _calls.get(place, 0)
        if seen >= MOST:
            return function(*args, **kwargs)
        _calls[place] = seen + 1
        if ready is None:
            ready = _check_all(function, typechecker=typechecker)
        return ready(*args, **kwargs)

    return call
