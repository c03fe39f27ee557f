"""A case's fields as columns of frames and tables: what makes a setting, and where each stands.

A new field of `schema.Case` has its place here alone: without one it is among `AROUND`, so that it
is a part of every setting, a column of the tables of cases and exponents, and no two numbers that
differ in it are compared.
"""

from __future__ import annotations

from dataclasses import fields

from results.schema import Case

CASE_COLUMNS = tuple(f.name for f in fields(Case) if f.name != "arms")

CASE_TEXTS = tuple(f.name for f in fields(Case) if f.default == "")
"""Those that a stranger may write what he likes in."""

RUN = ("machine", "environment", "version")
"""Where a case was measured."""

SHAPE = ("batch", "num_heads", "num_kv_heads", "head_dim")

RESOURCES = ("threads", "allocator", "matmul_precision", "compile")
"""How it is run."""

_OTHERS = (
    "kind", "level", "mode", "device", "dtype", "seq_len", "key_len", "is_causal", "seed",
    "inputs", "task", "training", "weights", "ranks",
)  # fmt: skip

AROUND = tuple(c for c in CASE_COLUMNS if c not in (*SHAPE, *RESOURCES, *_OTHERS))
"""What the attention stands in."""

SETTING = (
    *RUN, "level", "device", "dtype", *SHAPE, "is_causal", *RESOURCES, "cross_len", *AROUND,
)  # fmt: skip
"""What must be equal before two numbers are compared; `cross_len` is 0 for self-attention."""

SERIES_COLUMNS = (
    "backend", "options", "level", "mode", "device", "dtype", "batch", "num_heads", "head_dim",
    "is_causal", *RESOURCES, *AROUND,
)  # fmt: skip
"""What tables that leave the house say of a series."""

PEAK_COLUMNS = ("machine", "environment", "device", "dtype", *RESOURCES[:3])
"""What a peak of the machine, and an empty call, belongs to."""
