"""What is known of a case before it ran: what a child declared, and what its shape implies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from results.schema import ITEM_SIZE, Arm, Case

LIKE = "like "
"""What stands before the key of cases that take about as long as one another."""


def needed_calls(case: Case) -> int:
    """Return the fewest calls that a measurement makes.

    Warm-up, one sample, the memory pass; around a backend one more, in which it is watched.
    """
    return 3 if case.level == "attention" else 4


@dataclass(frozen=True)
class Declared:
    """What preflight said of a case.

    Attributes:
        unsupported: why it cannot run here; empty = it can.
        costs: per arm, ``pattern_ops``, ``executed_ops``, ``exponentials``, ``bytes``.
        time_exponent: of the first arm, in the length.
        memory_exponent: of the first arm, in the length.
    """

    unsupported: tuple[str, ...] = ()
    costs: tuple[Mapping[str, float] | None, ...] = ()
    time_exponent: float = 1.0
    memory_exponent: float = 1.0

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Declared:
        """Read a case of a preflight record."""
        return cls(
            tuple(told["unsupported"]),
            tuple(told["cost"]),
            float(told["time_exponent"]),
            float(told["memory_exponent"]),
        )


def operations(costs: Iterable[Mapping[str, float] | None]) -> float:
    """Return the operations of all arms whose cost is declared."""
    return sum(float(cost["executed_ops"]) for cost in costs if cost is not None)


def setting_of(case: Case) -> tuple[Any, ...]:
    """Return what the machine's peak rates belong to."""
    return case.device, case.dtype, case.threads, case.allocator, case.matmul_precision


def inputs_bytes(case: Case) -> int:
    """Return the bytes of q, k and v, or of a layer's input."""
    query = case.batch * case.seq_len * case.num_heads * case.head_dim
    keys = case.batch * case.key_len * case.num_kv_heads * case.head_dim
    elements = query + 2 * keys if case.level == "attention" else query
    return elements * ITEM_SIZE[case.dtype]


def likenesses(case: Case) -> list[str]:
    """Return keys under which trainings take about as long, the closest first."""
    seedless = replace(case, seed=0)
    anyone = replace(seedless, arms=(Arm("any"),))
    either = replace(anyone, is_causal=False, model="")
    return [f"{LIKE}{one.id}" for one in (seedless, anyone, either)]
