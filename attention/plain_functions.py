"""A plain function as a backend: called and measured as it is, checked against nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from attention.base import Attention
from attention.problem import EVERYWHERE, Cost, Mode, Problem, Supports
from attention.registry import register


class FunctionAttention(Attention):
    """A function ``f(q, k, v, is_causal=...)``; what it costs and whether it is right is unknown.

    Args:
        num_heads: H.
        head_dim: D.
    """

    summary = "a plain function; its output is not checked"
    family = "dense"
    exact = False
    has_reference = False
    supports = Supports(causal=True, cross=True, key_padding=False, value_dim=True,
                        dtypes=EVERYWHERE)  # fmt: skip
    refusals: ClassVar[dict[str, str]] = {}
    time_exponent = memory_exponent = 2.0
    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Call the function.

        Raises:
            ValueError: if it returns no tensor of the output's shape.
        """
        self.kernel = "function"
        out: Any = type(self).function(q, k, v, is_causal=is_causal)
        expected = (*q.shape[:3], v.shape[3])
        if not isinstance(out, Tensor) or out.shape != expected:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"{self.name}: the function must return {tuple(expected)}, got {got}")
        return out

    def reference(self, q: Tensor, k: Tensor, v: Tensor, **asked: Any) -> Tensor:
        """Refuse: there is no formula to hold the function against."""
        raise NotImplementedError(f"{self.name} is a plain function: it has no reference")

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Refuse: nobody said what the function computes."""
        raise NotImplementedError(f"{self.name} is a plain function: its cost is unknown")


def register_function(name: str, function: Callable[..., Tensor]) -> type[Attention]:
    """Make a plain function known as a backend, to be measured at once.

    Its output is not checked, and no share of the machine's peak is stated of it.

    Args:
        name: as ``--backend`` will take it.
        function: ``f(q, k, v, is_causal=...)``: of ``[B, H, N, D]``, ``[B, H_kv, M, D]`` and
            ``[B, H_kv, M, D_v]``, gives ``[B, H, N, D_v]``.

    Raises:
        TypeError: if it is no function, or takes no `is_causal`.
        ValueError: if another backend already has the name, or ``--backend`` could not take it.
    """
    if not callable(function):
        raise TypeError(f"function: expected a function, got {type(function).__name__}")
    taken = inspect.signature(function).parameters
    if "is_causal" not in taken and not any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()
    ):
        raise TypeError(f"function: expected f(q, k, v, is_causal=...), got f({', '.join(taken)})")
    module = getattr(function, "__module__", __name__)
    made = type(f"{name}_function", (FunctionAttention,), {
        "function": staticmethod(function), "__module__": module, "__doc__": function.__doc__,
    })  # fmt: skip
    return register(name)(made)
