"""The projections that make a backend's inputs from hidden states."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attention.base import Attention, UnsupportedError
from attention.kernels.sequence_projection import along_sequence
from attention.problem import Problem

ProjectionOrder = Literal["auto", "features_first", "sequence_first"]


class QKVProjection(nn.Module):
    """Project hidden states to queries, keys and values, split into heads.

    Weights are drawn as by Glorot and Bengio 2010, biases start at zero, as in
    ``torch.nn.MultiheadAttention``. Arguments are checked by the layer that owns the projection.

    Args:
        d_model: width of the hidden states.
        num_heads: H.
        num_kv_heads: H_kv.
        head_dim: D.
        bias: whether the three projections have a bias.
    """

    def __init__(
        self, *, d_model: int, num_heads: int, num_kv_heads: int, head_dim: int, bias: bool
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = GlorotLinear(d_model, num_heads * head_dim, bias=bias)
        self.k_proj = GlorotLinear(d_model, num_kv_heads * head_dim, bias=bias)
        self.v_proj = GlorotLinear(d_model, num_kv_heads * head_dim, bias=bias)

    def copied(self) -> QKVProjection:
        """Return a copy whose `reset_parameters` copies these weights again."""
        made = copy.deepcopy(self)
        for name, projection in self.named_children():
            copied = made.get_submodule(name)
            assert isinstance(copied, GlorotLinear)
            assert isinstance(projection, nn.Linear)
            copied.start_as = (projection,)
        return made

    def forward(self, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make q, k and v.

        Args:
            x: ``[B, N, d_model]``, makes the queries.
            key: ``[B, M, d_model]``, makes keys and values.

        Returns:
            ``[B, H, N, D]``, ``[B, H_kv, M, D]`` and ``[B, H_kv, M, D]``: strided views, not
            copies.
        """
        return (
            self.split(self.q_proj(x)),  # [B, H, N, D]
            self.split(self.k_proj(key)),  # [B, H_kv, M, D]
            self.split(self.v_proj(key)),  # [B, H_kv, M, D]
        )

    def split(self, x: Tensor) -> Tensor:
        """``[B, N, heads·D]`` to ``[B, heads, N, D]``."""
        batch, seq_len, width = x.shape
        return x.view(batch, seq_len, width // self.head_dim, self.head_dim).transpose(1, 2)


def picks_sequence_first(
    attention: Attention, order: str, qkv: QKVProjection, key_len: int, *, turns: bool
) -> bool:
    """Whether a bidirectional call on M keys projects the sequence before the features.

    Args:
        attention: the backend.
        order: that was asked for.
        qkv: of the layer.
        key_len: M.
        turns: whether the layer turns keys by their positions.

    Raises:
        UnsupportedError: if the order was asked for and the backend does not have it.
    """
    if order == "features_first" or (turns and order == "auto"):
        return False
    if turns:
        raise UnsupportedError(
            "projection_order: rotary positions turn the keys before a sequence is projected; "
            "accepted: auto, features_first"
        )
    if attention.sequence_projections(key_len) is None:
        if order == "sequence_first":
            raise UnsupportedError(
                f"projection_order: {attention.name} as it was built multiplies nothing "
                "along the sequence that all heads share; accepted: auto, features_first"
            )
        return False
    if order == "sequence_first":
        return True
    k_proj = qkv.k_proj
    return saved_ops(attention, k_proj.in_features, k_proj.out_features, key_len) > 0


def attend_sequence_first(
    attention: Attention,
    qkv: QKVProjection,
    x: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
) -> Tensor:
    """Project the sequence, then the features, then attend: ``[B, H, N, D]``.

    Args:
        attention: a backend with `Attention.sequence_projections`.
        qkv: of the layer.
        x: ``[B, N, d_model]``.
        key: ``[B, M, d_model]``, zeros at padding.
        key_padding_mask: bool ``[B, M]``, True = takes part; or ``None``.

    Raises:
        ValueError: if the batches differ.
        UnsupportedError: if the backend's own call would refuse the request.
    """
    q = qkv.split(qkv.q_proj(x))
    if len(q) != len(key):
        raise ValueError(f"key: expected batch {len(q)} as x, got {len(key)}")
    problem = Problem(
        batch=len(key),
        num_heads=attention.num_heads,
        head_dim=attention.head_dim,
        seq_len=x.shape[1],
        key_len=key.shape[1],
        num_kv_heads=qkv.k_proj.out_features // qkv.head_dim,
        dtype=q.dtype,
        device=q.device.type,
        key_padding=key_padding_mask is not None,
    )
    if reasons := attention.unsupported_reasons(problem):
        raise UnsupportedError("; ".join(reasons))
    k, v = sequence_first(attention, key, key_padding_mask, qkv.k_proj, qkv.v_proj)
    return attention.attend_projected(q, qkv.split(k), qkv.split(v))


def sequence_first(
    attention: Attention,
    key: Tensor,
    key_padding_mask: Tensor | None,
    k_proj: nn.Linear,
    v_proj: nn.Linear,
) -> tuple[Tensor, Tensor]:
    """Compute ``(E·X)·W`` where a layer would compute ``E·(X·W)``, for keys and for values.

    Args:
        attention: a backend with `Attention.sequence_projections`.
        key: X, ``[B, M, d_model]``, zeros at padding.
        key_padding_mask: bool ``[B, M]``, True = takes part; or ``None``.
        k_proj: W of the keys.
        v_proj: W of the values.

    Returns:
        ``[B, R, H_kv·D]`` twice.
    """
    matrices = attention.sequence_projections(key.shape[1])
    assert matrices is not None
    real = None
    if key_padding_mask is not None:
        real = key_padding_mask[:, :, None].to(key.dtype)
    first, second = matrices
    short = along_sequence(first, key)  # [B, R, d_model]
    other = short if second is first else along_sequence(second, key)
    return (
        _linear_of_sums(k_proj, short, first, real),
        _linear_of_sums(v_proj, other, second, real),
    )


def _linear_of_sums(
    projection: nn.Linear, x: Tensor, matrix: Tensor, real: Tensor | None
) -> Tensor:
    """Project sums of hidden states; each holds the bias as often as its weights add up to.

    Args:
        projection: W.
        x: ``[B, R, d_model]``.
        matrix: what the sums were made by, ``[R, M]``.
        real: 1 where a token is no padding, ``[B, M, 1]``; ``None`` = everywhere.
    """
    projected = nn.functional.linear(x, projection.weight)
    if projection.bias is not None:
        share = matrix.sum(1, keepdim=True)[None] if real is None else matrix.to(real.dtype) @ real
        projected = projected + share.to(projected.dtype) * projection.bias.to(projected.dtype)
    return projected


def saved_ops(attention: Attention, d_model: int, width: int, key_len: int) -> int:
    """Count the operations that ``(E·X)·W`` saves against ``E·(X·W)``, keys and values together.

    Args:
        attention: the backend; without `Attention.sequence_projections` there is nothing to save.
        d_model: of the hidden states.
        width: ``H_kv·D``.
        key_len: M.

    Returns:
        for one sequence; 0 where the usual order is the shorter one.
    """
    matrices = attention.sequence_projections(key_len)
    if matrices is None:
        return 0
    rank, distinct = matrices[0].shape[0], 1 if matrices[0] is matrices[1] else 2
    usual = 4 * width * key_len * (d_model + rank)
    return max(0, usual - 2 * d_model * rank * (distinct * key_len + 2 * width))


class GlorotLinear(nn.Linear):
    """A linear layer whose weight is drawn uniformly after Glorot; its bias starts at zero.

    Attributes:
        start_as: the layer whose weights it starts with instead; none = it draws its own. In a
            tuple: it is no part of this one.
    """

    start_as: tuple[nn.Linear, ...] = ()

    def reset_parameters(self) -> None:
        """Draw the weight anew, or copy it."""
        if self.start_as:
            self.load_state_dict(self.start_as[0].state_dict())
            return
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def check_hidden(name: str, x: Any, d_model: int) -> None:
    """Check that `x` is a floating-point tensor ``[B, N, d_model]``.

    Raises:
        TypeError: if it is no tensor or holds no floating-point numbers.
        ValueError: if it has another shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    if x.dim() != 3 or x.shape[2] != d_model or x.shape[1] < 1:
        raise ValueError(
            f"{name}: expected [B, N, {d_model}] with N at least 1, got {tuple(x.shape)}"
        )
