"""The run-time checker of the tests: beartype, taking an int where a float is asked for as type checkers do."""

from functools import wraps

from beartype import BeartypeConf, beartype

prepared = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function):
    """The function with its checks, which are made at its first call: most functions are not called in a process."""
    ready = None

    @wraps(function)
    def check_and_call(*args, **kwargs):
        nonlocal ready
        if ready is None:
            ready = prepared(function)
        return ready(*args, **kwargs)

    return check_and_call
