"""Options of constructors: which there are, which are missing, which was perhaps meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any


def near_miss(name: object, names: Iterable[str]) -> str:
    """Return the name that was perhaps meant, as a question in brackets, or nothing."""
    near = difflib.get_close_matches(str(name), [*names], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_options(
    owner: str, accepted: Mapping[str, inspect.Parameter], given: Iterable[str]
) -> None:
    """Check that options are arguments of a constructor and that none is missing.

    Args:
        owner: whose constructor, for messages.
        accepted: its arguments, by name.
        given: names of the options.

    Raises:
        TypeError: if an option is unknown or missing; the message names those accepted.
    """
    given = [*given]
    for option in given:
        if option not in accepted:
            raise TypeError(
                f"{option}: {owner} has no such option{near_miss(option, accepted)}; "
                f"accepted: {', '.join(accepted) or 'none'}"
            )
    missing = [n for n, p in accepted.items() if p.default is p.empty and n not in given]
    if missing:
        raise TypeError(f"{missing[0]}: {owner} needs {', '.join(missing)}")


def describe_option(parameter: inspect.Parameter) -> dict[str, Any]:
    """Return an option's type and default (or ``required``) as plain values."""
    described: dict[str, Any] = {"type": str(parameter.annotation)}
    default = parameter.default
    if default is parameter.empty:
        return described | {"required": True}
    return described | {"default": list(default) if isinstance(default, tuple) else default}
