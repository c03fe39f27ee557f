"""The contract as code: ``check(backend)`` says what a backend does not keep.

Used by the project's tests, by ``attnbench check``, and by third parties on their own backends:

    >>> from attention.testing import check
    >>> [f for f in check("sdpa") if f.status == "failed"]
    []

In pytest, a test a check: ``test_contract = attention.testing.contract("my_backend")``.

Every check is a function of a `Bench` that raises `Violation` or returns; the table `CHECKS` holds
them in order. Oracles run in float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from attention.base import Attention
from attention.registry import get
from attention.testing import composition, conformance, costs, packing, refusals, widths
from attention.testing.bench import Bench as Bench
from attention.testing.bench import Inputs as Inputs
from attention.testing.bench import NotAsked, Violation
from attention.testing.bench import assert_matches as assert_matches
from attention.testing.costs import counted_ops as counted_ops


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        status: ``passed``, ``failed``, or ``skipped`` (not declared, so not asked).
        message: what was wrong, or why it was skipped.
        how: Python that fails in the same way, as it stands: it finds the backend, plug-ins too,
            shows the call, and repeats the check.
    """

    check: str
    status: Literal["passed", "failed", "skipped"]
    message: str
    how: str


def check(
    backend: str | type[Attention],
    *,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    only: str | None = None,
    measure: bool = False,
) -> list[Finding]:
    """Hold a backend against the contract.

    Args:
        backend: a registered name, or a class.
        options: for its constructor, beside num_heads, head_dim, seq_len and seed.
        device: where to run.
        only: the name of one check; ``None`` = all.
        measure: also time the backend and hold the exponent against the declared one. Off by
            default: time depends on what else the machine does.

    Returns:
        one finding a check, in the order of `CHECKS`.

    Raises:
        ValueError: if `backend` or `only` is unknown.
        TypeError: if `backend` is neither a name nor a subclass of Attention.
    """
    cls = get(backend) if isinstance(backend, str) else backend
    if not (inspect.isclass(cls) and issubclass(cls, Attention)):
        raise TypeError(f"backend: expected a name or a subclass of Attention, got {cls!r}")
    if only is not None and only not in CHECKS:
        raise ValueError(f"only: no check {only!r}; there are {', '.join(CHECKS)}")
    names = [only] if only else [n for n in CHECKS if measure or n != "time_exponent"]
    if not cls.has_reference:
        return [
            Finding(name, "skipped", "a plain function declares nothing", "") for name in names
        ]
    if lacking := refusals.missing(cls):
        return [Finding("declaration", "failed", f"{cls.name} lacks {', '.join(lacking)}", "")]
    if reasons := cls.unavailable_reasons(device):
        return [Finding(name, "skipped", "; ".join(reasons), "") for name in names]
    return [_run(name, Bench(cls, dict(options or {}), device)) for name in names]


def _run(name: str, bench: Bench) -> Finding:
    try:
        CHECKS[name](bench)
    except NotAsked as reason:
        return Finding(name, "skipped", str(reason), "")
    except Violation as violation:
        return Finding(name, "failed", str(violation), _how(name, bench, violation.shown))
    except Exception as error:  # the backend's own fault: it is what the check found
        return Finding(name, "failed", f"{type(error).__name__}: {error}", _how(name, bench, ""))
    return Finding(name, "passed", "", "")


def _how(name: str, bench: Bench, shown: str) -> str:
    """Write Python that shows a call and then fails as a check did."""
    head = "import attention\nimport torch\nfrom attention.testing import CHECKS, Bench"
    again = f"CHECKS[{name!r}](Bench(cls, {bench.options!r}, {bench.device!r}))"
    return "\n".join([head, bench.found(), *([shown] if shown else []), again])


def contract(
    backend: str | type[Attention],
    *,
    options: dict[str, Any] | None = None,
    device: str = "cpu",
    measure: bool = False,
) -> Callable[[str], None]:
    """Return the contract as a pytest test, a case a check.

    In a test file: ``test_contract = contract("my_backend")``. A failure comes with Python that
    shows it again; what the backend does not declare is skipped. Needs pytest.

    Args:
        backend: as of `check`, and so the others.
        options: for its constructor.
        device: where to run.
        measure: also hold the exponent of time against the declared one.
    """
    import pytest

    names = [n for n in CHECKS if measure or n != "time_exponent"]

    @pytest.mark.parametrize("name", names)
    def test(name: str) -> None:
        (finding,) = check(backend, options=options, device=device, only=name)
        if finding.status == "skipped":
            pytest.skip(finding.message)
        if finding.status == "failed":
            pytest.fail(f"{finding.message}\n\n{finding.how}", pytrace=False)

    return test


CHECKS: dict[str, Callable[[Bench], None]] = {
    "declaration": refusals.check_declaration,
    "shapes": conformance.check_shapes,
    "dtypes": conformance.check_dtypes,
    "reference": conformance.check_reference,
    "gradients": conformance.check_gradients,
    "exactness": conformance.check_exactness,
    "future": conformance.check_future,
    "padding": conformance.check_padding,
    "batch": conformance.check_batch,
    "state": conformance.check_state,
    "value_dim": widths.check_value_dim,
    "packed": packing.check_packed,
    "packed_leak": packing.check_packed_leak,
    "determinism": conformance.check_determinism,
    "persistence": composition.check_persistence,
    "second_derivative": composition.check_second_derivative,
    "in_place": composition.check_in_place,
    "meta": composition.check_meta,
    "functional": composition.check_functional,
    "padding_content": composition.check_padding_content,
    "refusals": refusals.check_refusals,
    "hidden_memory": costs.check_hidden_memory,
    "operations": costs.check_operations,
    "ops_exponent": costs.check_ops_exponent,
    "time_exponent": costs.check_time_exponent,
}
"""Name to check, in the order they run."""
