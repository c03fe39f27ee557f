"""Lines of Python that use a backend as it was measured: with its options, shape and mode."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from results.schema import FULL_PRECISION, parse_option
from results.text.clean import clean
from results.text.labels import BACKENDS

NEEDS_LENGTH = ("linformer",)
"""Backends that are built for a longest length."""

BUDGETS: Mapping[str, Mapping[str, int]] = {
    "longformer": {"window": 256},
    "bigbird": {"block_size": 64, "num_random_blocks": 3},
    "linformer": {"rank": 256},
    "performer": {"num_features": 256},
}
"""Of our backends, the defaults of the options that say how much they compute: they are written
out, since the time is theirs. A test holds them against the backends."""

FIXED = ("num_heads", "head_dim")
"""Arguments that the setting gives, and no option may."""

ROOM = 256
"""Tokens that a state has room for beyond the context."""


def python_lines(
    backend: str, options: str, *, setting: Mapping[str, Any], mode: str, seq_len: int
) -> str:
    """Return a program that builds a backend and calls it once, on inputs drawn at random.

    Args:
        backend: its name.
        options: as the command line writes them.
        setting: values of `case_columns.SETTING`.
        mode: of the call.
        seq_len: N, tokens; in mode decode those of the context.

    Returns:
        Its lines; where the options cannot be written as Python (cut, or no option's form), one
        comment that says so.
    """
    try:
        chosen = parse_options(options)
    except ValueError as error:
        return f"# {clean(backend)}: {clean(error)}: its options cannot be written as Python\n"
    arguments: dict[str, Any] = {name: int(setting[name]) for name in FIXED}
    if backend in NEEDS_LENGTH and "seq_len" not in chosen:
        arguments["seq_len"] = seq_len
    arguments |= {**BUDGETS.get(backend, {}), **chosen}
    shown = "".join(f", {name}={_literal(value)}" for name, value in arguments.items())
    lines = ["import torch", "import attention"]
    if backend not in BACKENDS:
        lines += ['# attention.registry.load_file("FILE.py")  # a plug-in that is a file of yours']
    if setting["matmul_precision"] != FULL_PRECISION:
        lines += [f'torch.set_float32_matmul_precision("{setting["matmul_precision"]}")']
    lines += [f"attend = attention.build({_literal(backend)}{shown}){_placed(setting)}"]
    if setting["compile"]:
        lines += ["attend = torch.compile(attend)"]
    return "\n".join([*lines, *_CALLS[mode](setting, seq_len)]) + "\n"


def _placed(setting: Mapping[str, Any]) -> str:
    where = [_literal(setting["device"])] if setting["device"] != "cpu" else []
    what = [f"torch.{setting['dtype']}"] if setting["dtype"] != "float32" else []
    return f".to({', '.join(where + what)})" if where or what else ""


def _kind(setting: Mapping[str, Any]) -> str:
    """Return the arguments of a tensor that are not torch's defaults."""
    where = f', device="{setting["device"]}"' if setting["device"] != "cpu" else ""
    what = f", dtype=torch.{setting['dtype']}" if setting["dtype"] != "float32" else ""
    return where + what


def _inputs(setting: Mapping[str, Any], tokens: int, *, more: str = "") -> list[str]:
    kind = _kind(setting) + more
    shape = f"{setting['batch']}, {setting['num_heads']}, {tokens}, {setting['head_dim']}"
    if setting["num_kv_heads"] == setting["num_heads"]:
        return [f"q, k, v = torch.randn(3, {shape}{kind})  # yours: [B, H, N, D] each"]
    keys = f"{setting['batch']}, {setting['num_kv_heads']}, {tokens}, {setting['head_dim']}"
    return [
        f"q = torch.randn({shape}{kind})  # yours: [B, H, N, D]",
        f"k, v = torch.randn(2, {keys}{kind})  # yours: [B, H_kv, N, D] each",
    ]


def _forward(setting: Mapping[str, Any], seq_len: int) -> list[str]:
    return [
        *_inputs(setting, seq_len),
        "with torch.no_grad():",
        f"    out = attend(q, k, v, is_causal={bool(setting['is_causal'])})  # [B, H, N, D]",
    ]


def _training(setting: Mapping[str, Any], seq_len: int) -> list[str]:
    return [
        *_inputs(setting, seq_len, more=", requires_grad=True"),
        f"out = attend(q, k, v, is_causal={bool(setting['is_causal'])})  # [B, H, N, D]",
        "out.sum().backward()  # your loss; attend.parameters() are to be trained, if it has any",
    ]


def _decode(setting: Mapping[str, Any], seq_len: int) -> list[str]:
    heads = setting["num_kv_heads"]
    own = f", num_kv_heads={heads}" if heads != setting["num_heads"] else ""
    shape = f"batch_size={setting['batch']}, max_len={seq_len + ROOM}{own}"
    return [
        f"state = attend.init_state({shape}{_kind(setting)})",
        "with torch.no_grad():",
        *(f"    {line}" for line in _inputs(setting, seq_len)),
        "    out = attend.prefill(q, k, v, state)  # the context, in one piece or several",
        *(f"    {line}" for line in _inputs(setting, 1)),
        "    out = attend.step(q, k, v, state)  # the next token: [B, H, 1, D]",
    ]


_CALLS = {"forward": _forward, "training": _training, "decode": _decode}


# -- options -------------------------------------------------------------------------------------


def parse_options(text: str) -> dict[str, Any]:
    """Read ``key=value,…`` as `Arm.label` writes it; a value ``a+b`` is a list.

    Raises:
        ValueError: if the text does not have this form, or a name is no argument's.
    """
    found: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not (key.isascii() and key.isidentifier()) or keyword.iskeyword(key):
            raise ValueError(f"{part[:60]!r} does not have the form key=value")
        if key in found or key in FIXED or not equals or not value:
            raise ValueError(f"{part[:60]!r} is no option of its own")
        found[key] = parse_option(value)
    if "~" in text:
        raise ValueError("too long to be kept whole")
    return found


def _literal(value: Any) -> str:
    """Write a value as Python; text in double quotes, as the code around it."""
    if isinstance(value, str):
        quoted = repr(value)
        plain = '"' not in value and "'" not in value
        return f'"{quoted[1:-1]}"' if plain else quoted
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
