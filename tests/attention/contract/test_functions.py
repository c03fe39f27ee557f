"""Plain functions as backends, and plug-ins that lack parts of the declaration."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attention
import attention.testing
from attention.registry import _registry


def _doubled(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    return 2 * F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def test_a_function_is_called_as_it_is_and_asked_nothing() -> None:
    try:
        attention.register_function("doubled", _doubled)
        module = attention.build("doubled", num_heads=2, head_dim=4)
        q = torch.randn(1, 2, 5, 4)
        assert torch.equal(module(q, q, q, is_causal=True), _doubled(q, q, q, is_causal=True))
        assert {f.status for f in attention.testing.check("doubled")} == {"skipped"}
        with pytest.raises(TypeError, match=r"function: expected f\(q, k, v, is_causal"):
            attention.register_function("worse", lambda q, k, v: q)
    finally:
        _registry.pop("doubled", None)


def test_all_that_a_backend_lacks_is_named_in_one_line() -> None:
    class Bare(attention.Attention):
        name = "bare"
        family = "dense"
        exact = False

        def attend(self, q: Tensor, k: Tensor, v: Tensor, **asked: object) -> Tensor:
            return v

    (finding,) = attention.testing.check(Bare)
    lacks = "bare lacks supports, time_exponent, memory_exponent, cost(), reference()"
    assert (finding.status, finding.message) == ("failed", lacks)
