"""From a configuration file of transformers to a configuration that can be measured.

A case names it as `suites.content_names.hf_config_name` does, by the file's content. Of a file
with a ``text_config`` the text model is meant. Dropout is off, since what is dropped could not be
checked, and there is no cache.

What a configuration or its class cannot be is found out before anything is timed, and makes the
case unsupported, with the file and the class in the reason.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from attention.base import UnsupportedError
from attention.plugins import said_of
from results.schema import Case
from suites import content_names
from suites.measure.memory import is_out_of_memory

_ROOM = ("max_position_embeddings", "n_positions")

_files: ContextVar[Mapping[str, Path]] = ContextVar("files")


def is_transformers(model: str) -> bool:
    """Whether a case's model is one of transformers."""
    return model.startswith(content_names.HF_PREFIX)


@contextmanager
def files_given(given: Mapping[str, str | Path]) -> Iterator[None]:
    """Say where configurations lie, by the names of their models, for what runs inside."""
    token = _files.set({name: Path(path) for name, path in given.items()})
    try:
        yield
    finally:
        _files.reset(token)


def _file_of(model: str) -> Path:
    """Return where the configuration of a case's model lies.

    Raises:
        ValueError: if it was not given, or has changed.
    """
    given = _files.get({})
    if model not in given:
        named = ", ".join(sorted(filter(is_transformers, given))) or "none"
        raise ValueError(
            f"model: the configuration of {model} was not given with this command (--hf-config); "
            f"given: {named}"
        )
    path = given[model]
    if (now := content_names.hf_config_name(path)) != model:
        raise ValueError(
            f"model: {path.name} has changed: expected the content of {model}, got {now}; what a "
            "case reads must stay as it was"
        )
    return path


@contextmanager
def naming(case: Case, what: str) -> Iterator[None]:
    """Name the configuration's file, and the class, in what is refused inside."""
    try:
        yield
    except UnsupportedError as error:
        raise refusal(error, case, what) from None


def refusal(error: UnsupportedError, case: Case, what: str) -> UnsupportedError:
    """Return an error that names the file and what of it is refused."""
    return UnsupportedError(f"{_file_of(case.model).name}, {what}: {error}")


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Take an error of transformers' own code as a refusal: what it says is `what`.

    Raises:
        UnsupportedError: for every error but of memory.
    """
    try:
        yield
    except UnsupportedError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedError(f"{what}: {said_of(error)[:_LONGEST]}") from error


_LONGEST = 240


def config_of(case: Case) -> tuple[Any, bool]:
    """Return transformers' configuration of a case's model, without dropout and cache.

    With it comes whether it is that of a text model, out of one that reads more.

    Raises:
        ValueError: if its file was not given, or has changed.
        UnsupportedError: if transformers is not there or does not take it, it reads no token ids,
            or what the case asks is not measured.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UnsupportedError(
            "model: it needs the package transformers: pip install transformers"
        )
    given = content_names.read_hf_config(_file_of(case.model))
    kind = given["model_type"]
    with naming(case, kind):
        config, is_text = _read(given)
    with naming(case, type(config).__name__):
        if getattr(config, "is_encoder_decoder", False) or not count_of(config, "vocab_size"):
            raise UnsupportedError("model: expected one stack that reads token ids")
        if reasons := _unsupported(case, config):
            raise UnsupportedError("; ".join(reasons))
    return config, is_text


def _read(given: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the configuration that a file holds, and whether it is its ``text_config``.

    The ``architectures`` are those of the file.
    """
    import transformers

    kind, values = given["model_type"], {k: x for k, x in given.items() if k != "model_type"}
    if kind not in transformers.CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, transformers.CONFIG_MAPPING, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        version = transformers.__version__
        raise UnsupportedError(f"model_type: transformers {version} has none of this name{hint}")
    if given.get("quantization_config"):
        raise UnsupportedError("quantization_config: weights are random and whole; leave it out")
    with refusing("transformers refuses the configuration"):
        config = transformers.AutoConfig.for_model(kind, **values)
        text = getattr(config, "text_config", None)
        if text is not None:
            text.architectures = config.architectures
            config = text
        config.use_cache = False
        for name, dropped in config.to_dict().items():
            if _is_dropout(name, dropped):
                setattr(config, name, 0.0)
    return config, text is not None


def count_of(config: Any, name: str) -> int:
    """Return a count of a configuration, 0 where it has none."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _is_dropout(name: str, value: Any) -> bool:
    return "drop" in name and isinstance(value, float)


def _unsupported(case: Case, config: Any) -> list[str]:
    reasons = []
    if case.mode == "decode":
        reasons.append("mode: transformers' models have forward and training")
    if case.compile:
        reasons.append("compile: not available for transformers' models; expected off")
    if case.checkpointing:
        reasons.append("checkpointing: not available for transformers' models; expected off")
    for name in _ROOM:
        room = count_of(config, name)
        if room and case.seq_len > room:
            reasons.append(f"seq_len: {name} of the configuration is {room}; got {case.seq_len}")
            break
    return reasons
