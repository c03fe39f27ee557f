"""A setting in words: what stands over a chapter and beside a row that compares two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from results.schema import (
    FULL_PRECISION,
)
from results.text.clean import clean


def _threads(setting: Mapping[str, Any]) -> str:
    count = setting["threads"]
    return f"{count} thread{'s' if count != 1 else ''}" if setting["device"] == "cpu" else ""


def _heads(setting: Mapping[str, Any]) -> str:
    count = setting["num_heads"]
    if not count:  # a model's own
        return ""
    return f"{count} head{'s' if count != 1 else ''} × {setting['head_dim']}"


def _precision(setting: Mapping[str, Any]) -> str:
    """Name the precision of products; only float32 has a choice."""
    precision = setting["matmul_precision"]
    return f"matmul precision {precision}" if setting["dtype"] == "float32" else ""


_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "level": lambda s: f"{s['level']} level, {s['device']}",
    "model": lambda s: str(s["model"]),
    "dtype": lambda s: str(s["dtype"]),
    "matmul_precision": _precision,
    "batch": lambda s: f"batch {s['batch']}",
    "num_heads": _heads,
    "threads": _threads,
    "allocator": lambda s: f"{s['allocator']} allocator" if s["device"] == "cpu" else "",
    "num_kv_heads": lambda s: (
        f"{s['num_kv_heads']} KV heads" if s["num_kv_heads"] != s["num_heads"] else ""
    ),
    "is_causal": lambda s: "" if s["model"] else "causal" if s["is_causal"] else "bidirectional",
    "compile": lambda s: "compiled" if s["compile"] else "",
    "checkpointing": lambda s: "activation checkpointing" if s["checkpointing"] else "",
    "packed": lambda s: f"documents {s['packed']}" if s["packed"] else "",
    "padded": lambda s: "padded" if s["padded"] else "",
    "cross_len": lambda s: f"{s['cross_len']} keys" if s["cross_len"] else "",
}
"""In the order of a title; `device` stands with the level, `head_dim` with the heads."""

_STANDS_WITH = {"device": "level", "head_dim": "num_heads"}


def in_words(setting: Mapping[str, Any], *, with_precision: bool) -> str:
    """Return a setting as a title; the version comes last, where there are several.

    Args:
        setting: values of `case_columns.SETTING`.
        with_precision: name the precision of float32 products: where a run has another than
            torch's default.
    """
    names = [n for n in _WORDS if with_precision or n != "matmul_precision"]
    version = setting.get("version", "")
    return f"{_joined(setting, names)}{f', {version}' if version else ''}"


_USUAL = {"level": "attention", "allocator": "default"}


def in_short(setting: Mapping[str, Any], *, with_precision: bool) -> str:
    """Return a setting in a few words: its shape, and what is unusual; not its form.

    Args:
        setting: values of `case_columns.SETTING`.
        with_precision: as of `in_words`.
    """
    hidden = {"is_causal", *(() if with_precision else ("matmul_precision",))}
    hidden |= {name for name, usual in _USUAL.items() if setting[name] == usual}
    version = setting.get("version", "")
    words = _joined(setting, [n for n in _WORDS if n not in hidden])
    return f"{words}{f', {version}' if version else ''}"


def differing(setting: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return what some columns of a setting say, in words; machine and environment by their id.

    The version comes last, where there are several.
    """
    wanted = {_STANDS_WITH.get(c, c) for c in columns}
    places = [f"{c} {str(setting[c])[:8]}" for c in ("machine", "environment") if c in wanted]
    words = _joined(setting, [n for n in _WORDS if n in wanted])
    version = str(setting["version"]) if "version" in wanted else ""
    return ", ".join(part for part in (*places, words, version) if part)


def _joined(setting: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(text for name in names if (text := _WORDS[name](setting)))


def names_precision(settings: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether titles must name the precision of products: one is not torch's default."""
    return any(s["matmul_precision"] != FULL_PRECISION for s in settings)


def machine_name(about: Mapping[str, Any]) -> str:
    """Return what people call a machine: its GPU, else its CPU, "" where it is not described."""
    return clean(about.get("gpu") or about.get("cpu") or "")[:100]
