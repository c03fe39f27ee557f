"""Maths that two or more backends share: masks, head groups, error measures, dense softmax.

`dense_softmax_attention` and `visible_keys` belong to the references: plain, dense, slow. The fast
paths use what stands below them.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_compiling, is_exporting
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from attention.checks import UnsupportedError

P = ParamSpec("P")
T = TypeVar("T")


def expand_kv_heads(x: Tensor, num_heads: int) -> Tensor:
    """Repeat key or value heads so that each query head has its own.

    Args:
        x: ``[B, H_kv, M, D]``.
        num_heads: H, a multiple of H_kv.

    Returns:
        ``[B, H, M, D]``; `x` itself when H_kv = H, otherwise a copy.
    """
    groups = num_heads // x.shape[1]
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


# -- for references -----------------------------------------------------------------------------


def query_positions(seq_len: int, rows: Tensor | None, device: torch.device) -> Tensor:
    """Return the indices of the queries asked for, ``[K]``."""
    return torch.arange(seq_len, device=device) if rows is None else rows.to(device)


def visible_keys(
    positions: Tensor, seq_len: int, key_len: int, *, is_causal: bool,
    key_padding_mask: Tensor | None,
) -> Tensor:  # fmt: skip
    """Return which keys the queries at `positions` may see, densely.

    Args:
        positions: query indices ``[K]``.
        seq_len: N.
        key_len: M.
        is_causal: keys up to ``M - N + i``.
        key_padding_mask: bool ``[B, M]``, True = takes part.

    Returns:
        bool ``[B or 1, 1, K, M]``, True = visible.
    """
    visible = torch.ones(1, 1, len(positions), key_len, dtype=torch.bool, device=positions.device)
    if is_causal:
        keys = torch.arange(key_len, device=positions.device)
        visible = visible & (keys <= positions[:, None] + (key_len - seq_len))
    if key_padding_mask is not None:
        visible = visible & key_padding_mask[:, None, None, :]
    return visible


def dense_softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float, sink: Tensor | None = None
) -> Tensor:
    """Compute ``softmax(scale·QKᵀ)V`` over the visible pairs, plainly.

    Args:
        q: ``[B, H, K, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        visible: bool, broadcastable to ``[B, H, K, M]``.
        scale: factor on the scores.
        sink: logits ``[H]`` of one more key, whose value is zero; or ``None``.

    Returns:
        ``[B, H, K, D]``; zeros where a query sees no key.
    """
    k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
    some = visible.any(dim=-1, keepdim=True)
    scores = (q @ k.transpose(-2, -1)) * scale
    scores = scores.masked_fill(~visible & some, float("-inf"))
    if sink is not None:
        logits = sink.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        weights = torch.softmax(torch.cat([scores, logits], dim=-1), dim=-1)[..., :-1]
    else:
        weights = torch.softmax(scores, dim=-1)
    return (weights @ v) * some.to(v.dtype)


def exact_attention_rows(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
    key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
    scale: float | None = None, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute exact softmax attention for the queries at `rows` (``None`` = all), densely.

    Shapes as in `attention.base.Attention.reference`. This is what "relative error" is against.
    """
    positions = query_positions(q.shape[2], rows, q.device)
    visible = visible_keys(
        positions, q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return dense_softmax_attention(q[:, :, positions], k, v, visible, scale, sink)


# -- measures of error --------------------------------------------------------------------------


def relative_l2(actual: Tensor, expected: Tensor, *, least: float = 0.0) -> float:
    """Return ``‖actual - expected‖ / ‖expected‖`` in float64; NaN in either gives NaN.

    Args:
        actual: any shape.
        expected: of the same shape.
        least: what the norm of `expected` counts at least (`least_norms`): what is left of terms
            that cancel is no measure of their rounding.
    """
    expected = expected.detach().to(torch.float64)
    difference = actual.detach().to(torch.float64) - expected
    norm = max(float(expected.norm()), least)
    return float(difference.norm()) / norm if norm > 0 else float(difference.norm())


def least_norms(
    k: Tensor, v: Tensor, scale: float, output: Tensor, output_grad: Tensor | None = None
) -> dict[str, float]:
    """Return the norms of the terms that output and dq are sums of, for `relative_l2`.

    What is left of terms that cancel may be less than their rounding: the gradient of a softmax
    over one key is 0. A row of the output is a mean of values. A row of dq is
    ``scale·Σ_j P_j (dO·v_j - dO·O) k_j``: each product counts, and those of values four times
    where all keys weigh the same, as those of random features are larger.

    Args:
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        scale: factor on the scores.
        output: of the queries that count, ``[B, H, K, D]``.
        output_grad: of the same queries, ``[B, H, K, D]``.

    Returns:
        ``output``, and with `output_grad` ``dq``.
    """
    value = _root_mean_square(v) / math.sqrt(max(1, k.shape[2]))
    norms = {"output": value * math.sqrt(output.numel())}
    if output_grad is not None:
        products = max(4 * value * _norm(output_grad), _norm(output_grad.double() * output))
        norms["dq"] = scale * products * _root_mean_square(k) * math.sqrt(k.shape[-1])
    return norms


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach(), dtype=torch.float64))


def _root_mean_square(x: Tensor) -> float:
    return _norm(x) / math.sqrt(max(1, x.numel()))


def error_budget(dtype: torch.dtype, reference_error: float) -> float:
    """Return the relative L2 error that an implementation may have on inputs of `dtype`.

    It may be four times as far from the float64 oracle on the same inputs as the plain reference
    in float32 (in float64 for float64 inputs). The floor is two units in the last place of half
    precision, in which weights and output are rounded but no score, eight of float32 and sixteen
    of float64, in which the oracle rounds as much as what it is compared with.

    Args:
        dtype: of the inputs.
        reference_error: `relative_l2` of the reference on these inputs in float32, or in `dtype`
            where that is wider, against float64.
    """
    units = {torch.float32: 8, torch.float64: 16}.get(dtype, 2)
    return max(units * torch.finfo(dtype).eps, 4 * reference_error)


def in_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of half precision as float32, others as they are; all of one dtype."""
    if tensors[0].dtype in (torch.float32, torch.float64):  # a short call takes microseconds
        return tensors
    return tuple(x.to(torch.float32) for x in tensors)


# -- for fast paths -----------------------------------------------------------------------------


def has_values(x: Tensor) -> bool:
    """Whether the host may decide by the values of `x`.

    Not where there are none (the meta device, fake tensors), nor where the decision would not hold
    for the next values: in a graph that is compiled, exported or traced, and under the transforms
    of ``torch.func``.
    """
    if is_compiling() or _is_tracing() or x.is_meta:
        return False
    return type(x) in (Tensor, nn.Parameter) and not _is_wrapped(x)


_is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]
_is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor


def is_stand_in(x: Tensor) -> bool:
    """Whether `x` is but a shape (meta, fake), in no graph whose values come later."""
    if is_compiling() or not (x.is_meta or isinstance(x, FakeTensor)):
        return False
    return get_proxy_mode() is None


def refuse_to_be_frozen() -> None:
    """Refuse ``torch.jit.trace`` and ``torch.export``: they keep one walk over the sequence.

    Raises:
        UnsupportedError: if one of them is running.
    """
    by = "torch.jit.trace" if _is_tracing() else "torch.export" if is_exporting() else ""
    if by:
        raise UnsupportedError(
            f"{by}: this backend walks over the sequence in steps that depend on its length and "
            "mask, which would be frozen; expected torch.compile, or full or sdpa, which can be "
            "traced and exported"
        )


def opaque(function: Callable[P, T]) -> Callable[P, T]:
    """Keep torch.compile out of a function that walks over tiles.

    Traced, the walk would become a graph that grows with N; so a compiled module calls the
    function as it is, at the price of a graph break. ``torch.compiler.disable`` does that, but
    imports the compiler, which costs more than all of `attention`: here it is asked once the
    compiler is there. What would freeze the walk is refused (`refuse_to_be_frozen`).
    """
    kept_out: list[Callable[P, T]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        refuse_to_be_frozen()
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not kept_out:
            kept_out.append(torch.compiler.disable(function))
        return kept_out[0](*args, **kwargs)

    return call


def without_padding(x: Tensor, mask: Tensor) -> Tensor:
    """Return tokens with zeros at padding, whatever stood there: NaN and infinity too.

    Their gradient is zero, so neither pass of what follows can carry a trace of them.

    Args:
        x: ``[B, N, d]`` or ``[B, H, N, D]``.
        mask: bool ``[B, N]``, True = a token.
    """
    real = mask[:, :, None] if x.dim() == 3 else mask[:, None, :, None]
    return torch.where(real, x, 0.0)  # on a CPU in half the time of a masked fill


def gather_tokens(x: Tensor, at: Tensor) -> Tensor:
    """Gather tokens of ``[B, h, N, D]`` by their positions ``[B, X]``: ``[B, h, X, D]``."""
    return x.gather(2, at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def draw_seed() -> int:
    """Draw a seed from torch's default CPU generator: deterministic under ``manual_seed``."""
    seed = torch.randint(0, 2**62, (1,), device="cpu")
    return 0 if is_stand_in(seed) else int(seed.item())


def real_first(mask: Tensor) -> Tensor:
    """Return an order of each row of ``[B, N]`` with what is True in front, int64 ``[B, N]``."""
    return torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)


def only_trailing_padding(key_padding_mask: Tensor) -> bool:
    """Whether each row of ``[B, M]`` is real tokens first, padding after."""
    return bool((key_padding_mask[:, 1:] <= key_padding_mask[:, :-1]).all())
