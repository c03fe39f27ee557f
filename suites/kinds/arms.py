"""From an arm and its case to a module, its inputs, and what its surroundings cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attention import registry
from attention.base import Attention, Problem
from models import IdentityAttention, MultiheadAttention, TransformerBlock
from models.projection import saved_ops
from results.schema import FULL_PRECISION, IDENTITY, Arm, Case

FEED_FORWARD_FACTOR = 4
"""Width of a block's feed-forward layer, in units of d_model."""


@dataclass(frozen=True)
class Inputs:
    """What every arm of a case is called with, drawn once: normal, scale 1, under the seed.

    Attributes:
        tensors: q, k and v at level attention; x ``[B, N, d_model]`` at the others.
        output_grad: what a backward pass starts from; ``None`` in mode forward.
    """

    tensors: tuple[Tensor, ...]
    output_grad: Tensor | None


def dtype_of(case: Case) -> torch.dtype:
    """Return the torch dtype of a case."""
    dtype = getattr(torch, case.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def problem_of(case: Case) -> Problem:
    """Return the call of the backend that a case makes, at every level."""
    return Problem(
        batch=case.batch,
        num_heads=case.num_heads,
        head_dim=case.head_dim,
        seq_len=case.seq_len,
        key_len=case.key_len,
        num_kv_heads=case.num_kv_heads,
        dtype=dtype_of(case),
        device=case.device,
        is_causal=case.is_causal,
    )


def check_case(case: Case) -> None:
    """Check what no single backend can: that the case's fields fit one another.

    Raises:
        ValueError: naming the field, what came and what is accepted.
    """
    for name in ("batch", "num_heads", "num_kv_heads", "head_dim", "seq_len", "key_len"):
        if getattr(case, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(case, name)}")
    if case.threads < 1:
        raise ValueError(f"threads: expected at least 1, got {case.threads}")
    if case.matmul_precision != FULL_PRECISION and case.dtype != "float32":
        raise ValueError(
            f"matmul_precision: for {case.dtype} products only {FULL_PRECISION} is accepted; "
            f"got {case.matmul_precision}"
        )
    if case.num_heads % case.num_kv_heads:
        raise ValueError(
            f"num_kv_heads: expected a divisor of the {case.num_heads} heads, "
            f"got {case.num_kv_heads}"
        )
    if case.level != "attention" and case.key_len != case.seq_len:
        raise ValueError(
            f"key_len: level {case.level} attends within one sequence of {case.seq_len} tokens; "
            f"got {case.key_len}"
        )
    if case.level == "attention" and any(arm.name == IDENTITY for arm in case.arms):
        raise ValueError(f"backend: {IDENTITY} is the floor of level layer and block only")


def build_attention(arm: Arm, case: Case) -> Attention:
    """Build an arm's backend with its options and what the case fixes.

    Raises:
        ValueError: if there is no such backend or an option is out of range.
        TypeError: if an option is unknown or of the wrong type.
    """
    fixed: dict[str, Any] = {"num_heads": case.num_heads, "head_dim": case.head_dim}
    for name in fixed:
        if name in arm.options:
            raise TypeError(f"{name}: it is a property of the case, not an option of {arm.name}")
    if arm.name == IDENTITY:
        if arm.options:
            raise TypeError(f"{next(iter(arm.options))}: {IDENTITY} takes no option")
        return IdentityAttention(**fixed)
    accepted = registry.get(arm.name).options()
    defaults = {"seq_len": max(case.seq_len, case.key_len), "seed": case.seed}
    chosen = {name: value for name, value in defaults.items() if name in accepted}
    return registry.build(arm.name, **fixed, **{**chosen, **arm.options})


def unsupported_reasons(attention: Attention, case: Case) -> list[str]:
    """Say why a backend cannot serve a case; empty = it can."""
    reasons = attention.unsupported_reasons(problem_of(case))
    if case.mode == "training" and attention.dropout_p:
        reasons.append(
            f"dropout_p: a measured output is held against the formula without dropout; "
            f"got {attention.dropout_p}, accepted is 0"
        )
    return reasons


def build_module(attention: Attention, case: Case) -> nn.Module:
    """Build what the case's level measures around a backend, on its device, in its mode."""
    torch.manual_seed(case.seed)  # equal projections for all arms
    d_model = case.num_heads * case.head_dim
    module: nn.Module
    if case.level == "attention":
        module = attention
    elif case.level == "layer":
        module = MultiheadAttention(
            d_model=d_model,
            num_heads=case.num_heads,
            num_kv_heads=case.num_kv_heads,
            attention=attention,
        )
    else:
        module = TransformerBlock(
            d_model=d_model,
            num_heads=case.num_heads,
            num_kv_heads=case.num_kv_heads,
            d_ff=FEED_FORWARD_FACTOR * d_model,
            attention=attention,
        )
    return module.to(case.device, dtype_of(case)).train(case.mode == "training")


def draw_inputs(case: Case) -> Inputs:
    """Draw the inputs of a case; in mode training they require gradients."""
    generator = torch.Generator().manual_seed(case.seed)
    training = case.mode == "training"

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
        return drawn.to(case.device, dtype_of(case))

    query = (case.batch, case.num_heads, case.seq_len, case.head_dim)
    key = (case.batch, case.num_kv_heads, case.key_len, case.head_dim)
    hidden = (case.batch, case.seq_len, case.num_heads * case.head_dim)
    shapes = (query, key, key) if case.level == "attention" else (hidden,)
    tensors = tuple(draw(*shape).requires_grad_(training) for shape in shapes)
    return Inputs(tensors, draw(*shapes[0]) if training else None)


def cost_of(attention: Attention, case: Case) -> dict[str, int]:
    """Return the cost of a call at the case's level, as the record holds it.

    At level layer and block the operations of the projections and of the feed-forward layer come
    on top; the bytes are then x, the output and those weights, q, k and v being intermediate.
    """
    inner = attention.cost(problem_of(case), case.mode)
    if case.level == "attention":
        return asdict(inner)
    width, key_width = case.num_heads * case.head_dim, case.num_kv_heads * case.head_dim
    weights = 2 * width * width + 2 * width * key_width
    if case.level == "block":
        weights += 2 * FEED_FORWARD_FACTOR * width * width
    tokens = case.batch * case.seq_len
    passes = 1 if case.mode == "forward" else 3
    saved = 0 if case.is_causal else saved_ops(attention, width, key_width, case.key_len)
    ops = (2 * tokens * weights - case.batch * saved) * passes
    # Training reads x, the weights and the output's gradient again, and writes two gradients.
    activations = 2 if case.mode == "forward" else 5
    elements = activations * tokens * width + passes * weights
    return {
        "pattern_ops": inner.pattern_ops + ops,
        "executed_ops": inner.executed_ops + ops,
        "exponentials": inner.exponentials,
        "bytes": elements * dtype_of(case).itemsize,
    }
