"""The contract every attention backend keeps: axes, declaration, validation, errors.

Axes, said once and used in every docstring of the project:

| axis | what it counts |
| :-- | :-- |
| B | batch |
| H | query heads; H_kv key and value heads, H_kv divides H |
| N | query length in tokens |
| M | key length in tokens |
| D | head dimension; D_v of values and output, where a backend declares that it may differ |
| R | rank (low-rank methods) or number of random features (kernel methods) |
| W | window: keys seen on each side |

Tensors are ``[B, H, N, D]``, the order of ``torch.nn.functional.scaled_dot_product_attention``.

**Mask polarity: True = this key takes part** (as in SDPA's boolean mask; the opposite of
``torch.nn.MultiheadAttention``). Causal is aligned bottom-right: query ``i`` sees keys up to
``M - N + i``. A query with no key left gives zeros; the output at a padded query is finite and
unspecified.

**Padding leaves no trace**, whatever stands there, NaN and infinity included: before a backend
sees them, keys and values that take no part are replaced by zeros, whose gradient is zero. Where
N and M must be equal (``supports.cross`` is False), and in decoding, a padded token's query is
too. Elsewhere the mask speaks of keys alone, and every query is a real one: a NaN in one reaches
its own output and, going backward, the gradients of all keys that it sees. A layer that makes q, k
and v of one sequence cleans that (`models.layers.multihead`).

Under ``torch.autocast`` q, k and v are cast to the autocast dtype (float64 stays), the backend
then runs with autocast off, and the output has the autocast dtype, as torch's own SDPA does.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from attention.call_inputs import check_values, of_that_shape
from attention.checks import UnsupportedError as UnsupportedError
from attention.checks import (
    autocast_inputs,
    autocasts,
    check_bool,
    check_device,
    check_mask,
    check_qkv,
    signature,
)
from attention.decoding.mixin import Decoding
from attention.derivatives import in_transform
from attention.functional import is_stand_in, refuse_to_be_frozen
from attention.problem import EVERYWHERE as EVERYWHERE
from attention.problem import CallInput as CallInput
from attention.problem import Cost, Mode, Problem
from attention.problem import Supports as Supports

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


class Attention(Decoding, ABC):
    """Base of all backends: validates a call, then hands it to `attend`.

    A backend sets the class attributes, implements `attend`, `reference` and `cost`, and declares
    in `supports` what it serves. Options are keyword-only constructor arguments.

    Args:
        num_heads: H.
        head_dim: D.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if `dropout_p` is not 0 and the backend has no dropout.
    """

    # -- what a backend writes ----------------------------------------------------------------

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Compute the output ``[B, H, N, D]``; the fast path. Inputs are already validated."""

    @abstractmethod
    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Compute the paper's formula densely and plainly: the oracle, without dropout.

        Works in the dtype it is given and shares no code with `attend`.

        Args:
            q: ``[B, H, N, D]``.
            k: ``[B, H_kv, M, D]``.
            v: ``[B, H_kv, M, D]``.
            is_causal: as in `forward`.
            key_padding_mask: as in `forward`.
            rows: indices of queries ``[K]``; ``None`` means all. Time and memory are then
                ``O(K·M)``, so it serves at lengths where N·M does not.

        A backend with inputs of each token takes those too, by name, as `attend` does.

        Returns:
            ``[B, H, N, D]``, or ``[B, H, K, D]`` with `rows`.
        """

    @abstractmethod
    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count what a call on `problem` must do."""

    def sequence_projections(self, key_len: int) -> tuple[Tensor, Tensor] | None:
        """Return E and F ``[R, M]`` if this backend multiplies all heads' keys and values by them.

        A layer may then project the sequence before the features, ``(E·X)·W = E·(X·W)``, and call
        `attend_projected`. ``None``, the default: it does no such thing.

        Args:
            key_len: M.
        """
        return None

    def attend_projected(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to keys and values that `sequence_projections` were applied to.

        Args:
            q: ``[B, H, N, D]``.
            k: ``[B, H_kv, R, D]``.
            v: ``[B, H_kv, R, D]``.

        Returns:
            ``[B, H, N, D]``.
        """
        raise NotImplementedError(f"{self.name} projects no sequence")

    def attend_across(self, part: Part) -> Tensor:
        """Attend from a rank's part of a sequence that is cut over ranks.

        The default fetches the keys of all ranks, causal of those before, and attends to them: for
        backends that take more keys than queries. Inputs are already validated; all ranks call
        this together. See `attention.context_parallel`.

        Returns:
            ``[B, H, n, D]``.
        """
        exchange = part.exchange

        def wanted(rank: int) -> tuple[int, int]:
            return 0, exchange.spans[rank][1] if part.is_causal else exchange.total_length

        k, v, mask = part.fetch_keys(wanted)
        return self.attend(part.q, k, v, is_causal=part.is_causal, key_padding_mask=mask)

    def across_reasons(self, problem: Problem | None = None) -> list[str]:
        """Say why `attend_across` cannot serve; empty = it can.

        Args:
            problem: a call on the whole sequence; ``None`` = any.
        """
        if type(self).attend_across is not Attention.attend_across:
            return []
        if self.supports.cross and not self.call_inputs:
            return []
        why = self.refusals.get("context_parallel", "it needs the whole sequence at once")
        return [f"attention: {self.name} cannot be cut over ranks ({why})"]

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes that a rank receives in a forward pass of `attend_across`.

        Without padding mask and call inputs; of a training step see `attention.context_parallel`.

        Args:
            problem: the whole call.
            spans: of the ranks.
            rank: which one.
        """
        start, stop = spans[rank]
        fetched = start if problem.is_causal else problem.key_len - (stop - start)
        token = 2 * problem.batch * problem.num_kv_heads * problem.head_dim
        return fetched * token * problem.dtype.itemsize

    # -- what the base does --------------------------------------------------------------------

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        return_lse: bool = False,
        **call_inputs: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Validate the call, then attend.

        Args:
            q: queries ``[B, H, N, D]``.
            k: keys ``[B, H_kv, M, D]``.
            v: values ``[B, H_kv, M, D_v]``; D_v = D where ``supports.value_dim`` is false.
            is_causal: query ``i`` sees keys up to ``M - N + i`` only.
            key_padding_mask: bool ``[B, M]``, True = this key takes part.
            return_lse: whether to return the log-sum-exp beside the output.
            **call_inputs: only the names declared in the class's `call_inputs`.

        Returns:
            ``[B, H, N, D_v]``, dtype and device of `q` (under autocast: the autocast dtype). With
            `return_lse` a pair: the output and ``[B, H, N]``, the natural logarithm of the sum of
            the exponentials of a query's scaled scores, -inf where it sees no key; float32, of
            float64 inputs float64.

        Raises:
            TypeError: if an argument is of the wrong type or an extra input is not declared.
            ValueError: if shapes, dtypes, devices or a mask do not fit together.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        whole = self.whole_in_transforms and in_transform()
        plain = None
        unmasked = not (key_padding_mask is not None or call_inputs or return_lse or whole)
        if unmasked and type(is_causal) is bool and not is_dynamo_compiling():
            plain = signature(q, k, v, (is_causal, self.training))
            if plain is not None and plain == self._served:
                return self.attend(q, k, v, is_causal=is_causal, key_padding_mask=None)
        check_device(q, self.supports.dtypes, self.unavailable_reasons)
        if self.whole_in_transforms:
            refuse_to_be_frozen()
        q, k, v = check_qkv(
            q, k, v,
            num_heads=self.num_heads, head_dim=self.head_dim, nested=self.supports.nested,
        )  # fmt: skip
        autocast = autocasts(q.device.type)
        if autocast:
            q, k, v = autocast_inputs(q, k, v)
        if not isinstance(is_causal, bool):
            raise TypeError(f"is_causal: expected a bool, got {type(is_causal).__name__}")
        if key_padding_mask is not None:
            if q.is_nested:
                raise ValueError("key_padding_mask: nested tensors hold no padding; expected None")
            check_mask("key_padding_mask", key_padding_mask, (q.shape[0], k.shape[2]), q)
        extra = self.check_call_inputs(q, k, call_inputs)
        problem = Problem.of(
            q, k, is_causal=is_causal, key_padding=key_padding_mask is not None,
            value_dim=v.shape[3],
        )  # fmt: skip
        if reasons := self.unsupported_reasons(problem):
            raise UnsupportedError("; ".join(reasons))
        if key_padding_mask is not None:
            q, k, v, extra = self.clean_padding(
                q, k, v, key_padding_mask, extra, queries=not self.supports.cross
            )
        if extra:
            check_values(self.taken_inputs(), extra)
        attend: Callable[..., Any] = self.attend
        if whole:
            from attention.transforms import as_a_whole  # imports torch.func

            attend = functools.partial(as_a_whole, self, "attend")
        if check_bool("return_lse", return_lse):
            if q.is_nested:
                raise UnsupportedError("return_lse: not of nested tensors; expected padded ones")
            if reasons := self.lse_reasons(problem):
                raise UnsupportedError("; ".join(reasons))
            attend = self.attend_with_lse
        elif self.reads_values and (q.shape[0] == 0 or is_stand_in(q)):
            each = (x if isinstance(x, tuple) else (x,) for x in extra.values())
            return of_that_shape(q, k, v, *(x for one in each for x in one))
        asked = {"is_causal": is_causal, "key_padding_mask": key_padding_mask, **extra}
        if not autocast:
            self._served = plain
            return attend(q, k, v, **asked)  # type: ignore[no-any-return]
        with torch.autocast(q.device.type, enabled=False):
            return attend(q, k, v, **asked)  # type: ignore[no-any-return]

    def attend_with_lse(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Do as `attend`, and return the log-sum-exp ``[B, H, N]`` too: see `forward`."""
        raise NotImplementedError(f"{self.name} declares a log-sum-exp, but returns none")
