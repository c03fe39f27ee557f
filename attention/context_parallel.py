"""Context parallelism: one sequence over the ranks of a process group, by any backend that can.

    >>> layer = ContextParallel(attention.build("performer", num_heads=8, head_dim=64, seed=0))
    >>> out = layer(q, k, v, is_causal=True)  # q, k, v: this rank's tokens, on every rank

Every rank holds a span of the sequence, in the order of the ranks, and gets the output of its own
tokens: what the backend gives on one device, cut. What the ranks exchange is the backend's own
affair (`Attention.attend_across`), in bytes that a rank receives in a forward pass:

| backend | exchange | bytes |
| :-- | :-- | :-- |
| full, xformers | keys and values of all ranks; causal, of those before | grows with N |
| sdpa | keys and values of all ranks, passed round (`attention.parallel.ring`) | grows with N |
| longformer | keys and values W·d to each side, and of global tokens | independent of N |
| performer | the sums ``Σ φ(k)(v, 1)ᵀ`` ``[R, D + 1]`` and their stabilisers | independent of N |
| linformer | all-reduce of the projected keys and values ``[R, D]`` | independent of N |
| bigbird | refused: its random blocks lie anywhere in the sequence | |

`exchange_bytes` is the formula, `ContextParallel.received` what was counted. Any other backend
that takes more keys than queries (``supports.cross``) runs as the exact ones do.

All ranks call forward together, and go backward together: an exchange that one rank leaves out
leaves the others waiting. Where the loss is of one rank's tokens alone, the others go backward
from ``0 * out.sum()``.

Parameters that a backend has (linformer's E) get the gradient of this rank's tokens; sum it over
the ranks, as data parallelism does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attention.base import Attention, UnsupportedError
from attention.checks import autocast_inputs, check_mask, check_qkv
from attention.functional import draw_seed
from attention.parallel.collectives import Exchange, Part
from attention.problem import Problem


class ContextParallel(nn.Module):
    """A backend over one sequence that is cut over ranks.

    Args:
        attention: with equal parameters on all ranks.
        group: the ranks, in the order of their spans; ``None`` = all.

    Attributes:
        received: bytes that came from other ranks in the last call and its backward pass.

    Raises:
        TypeError: if `attention` is no backend.
        UnsupportedError: if the backend cannot be cut; the message says why.
        RuntimeError: if torch.distributed has no process group yet.
    """

    def __init__(self, attention: Attention, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        if not isinstance(attention, Attention):
            raise TypeError(f"attention: expected a backend, got {type(attention).__name__}")
        if why := attention.across_reasons():
            raise UnsupportedError("; ".join(why))
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "group: torch.distributed has no process group; start with torchrun and call "
                "torch.distributed.init_process_group first"
            )
        self.attention = attention
        self.group = group
        self._exchange: Exchange | None = None
        self._is_checked = False

    @property
    def received(self) -> int:
        """Bytes that came from other ranks in the last call and its backward pass."""
        return 0 if self._exchange is None else self._exchange.received

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The tokens of each rank in the last call, from the first to before the last."""
        return [] if self._exchange is None else self._exchange.spans

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, **call_inputs: Any,
    ) -> Tensor:  # fmt: skip
        """Attend over the whole sequence from this rank's tokens.

        Args:
            q: this rank's queries ``[B, H, n, D]``; n may differ between ranks.
            k: its keys ``[B, H_kv, n, D]``.
            v: its values ``[B, H_kv, n, D]``.
            is_causal: a token sees itself and what precedes it in the whole sequence.
            key_padding_mask: bool ``[B, n]``, True = this key takes part; on all ranks or none.
            **call_inputs: those that the backend declares, of this rank's tokens; likewise.

        Returns:
            ``[B, H, n, D]``.

        Raises:
            TypeError, ValueError, UnsupportedError: as `Attention.forward`; and a ValueError if k
                is not as long as q, or the ranks do not agree.
        """
        backend = self.attention
        try:
            q, k, v = check_qkv(q, k, v, num_heads=backend.num_heads, head_dim=backend.head_dim)
            if k.shape[2] != q.shape[2]:
                raise ValueError(
                    f"k: expected the {q.shape[2]} tokens of q, got {k.shape[2]}: a rank holds "
                    "one span of the sequence"
                )
            if not isinstance(is_causal, bool):
                raise TypeError(f"is_causal: expected a bool, got {type(is_causal).__name__}")
            if key_padding_mask is not None:
                check_mask("key_padding_mask", key_padding_mask, (q.shape[0], k.shape[2]), q)
            autocast = torch.is_autocast_enabled(q.device.type)
            if autocast:
                q, k, v = autocast_inputs(q, k, v)
            extra = backend.check_call_inputs(q, k, call_inputs)
            if v.shape[3] != q.shape[3]:
                raise UnsupportedError(
                    f"v: over ranks values are as wide as keys; got D={q.shape[3]}, "
                    f"D_v={v.shape[3]}"
                )
        except (TypeError, ValueError):  # the others must not wait for this rank
            device = q.device if isinstance(q, Tensor) else _device_of(self.group)
            Exchange(0, device, self.group, self._nothing(), {"refused": 1, "unchecked": 0})
            raise
        agreed = {
            "is_causal": int(is_causal),
            "key_padding_mask": int(key_padding_mask is not None),
            "call_inputs": _number(",".join(sorted(extra))),
            "q.dtype": _number(str(q.dtype)),
            "batch": q.shape[0],
            "num_kv_heads": k.shape[1],
            "requires_grad": _gradients(q, k, v, extra),
            "attention": _number(
                f"{type(backend).__name__} {backend.extra_repr()} {backend.training}"
            ),
        }
        assert agreed.keys() == self._nothing().keys()
        exchange = Exchange(
            q.shape[2], q.device, self.group, agreed,
            {"refused": 0, "unchecked": int(not self._is_checked)},
        )  # fmt: skip
        if refused := [rank for rank, one in enumerate(exchange.told["refused"]) if one]:
            raise ValueError(f"group: the call was refused on rank {', '.join(map(str, refused))}")
        exchange.check_agreed()
        whole = Problem.of(
            q, k, is_causal=is_causal, key_padding=key_padding_mask is not None,
            length=exchange.total_length,
        )  # fmt: skip
        if reasons := [*backend.unsupported_reasons(whole), *backend.across_reasons(whole)]:
            raise UnsupportedError("; ".join(reasons))
        self._exchange = exchange
        if any(exchange.told["unchecked"]):
            self._check_alike(q.device)
        if key_padding_mask is not None:
            q, k, v, extra = backend.clean_padding(
                q, k, v, key_padding_mask, extra, queries=not backend.supports.cross
            )
        part = Part(q, k, v, exchange, is_causal, key_padding_mask, extra)
        with ExitStack() as stack:
            if autocast:
                stack.enter_context(torch.autocast(q.device.type, enabled=False))
            if backend.active_dropout_p:  # built under one seed, ranks would drop alike
                seed = draw_seed()
                devices = [q.device] if q.device.type == "cuda" else []
                stack.enter_context(torch.random.fork_rng(devices))
                torch.manual_seed(seed + exchange.rank)
            return backend.attend_across(part)

    @staticmethod
    def _nothing() -> dict[str, int]:
        """Return what a rank that refuses its call has to say of it."""
        return dict.fromkeys(
            (
                "is_causal", "key_padding_mask", "call_inputs", "q.dtype", "batch",
                "num_kv_heads", "requires_grad", "attention",
            ),
            0,
        )  # fmt: skip

    def _check_alike(self, device: torch.device) -> None:
        """Check, at the first call, that all ranks hold equal parameters and buffers.

        Raises:
            ValueError: if they do not; all ranks raise it.
        """
        digest = hashlib.blake2b(digest_size=7)
        for x in (*self.attention.parameters(), *self.attention.buffers()):
            digest.update(f"{x.dtype} {tuple(x.shape)}".encode())
            content = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(content.numpy().tobytes())
        number = torch.tensor([int.from_bytes(digest.digest(), "big")], device=device)
        every = [torch.empty_like(number) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(every, number, group=self.group)
        digests = torch.cat(every).tolist()
        other = [rank for rank, one in enumerate(digests) if one != digests[0]]
        if other:
            raise ValueError(
                "attention: expected equal parameters and buffers on all ranks; those of rank "
                f"{', '.join(map(str, other))} are not rank 0's. Build it under one seed, or "
                "broadcast them"
            )
        self._is_checked = True


def _number(text: str) -> int:
    """Return a whole number that equal texts share."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _gradients(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> int:
    """Return which inputs are differentiated, a bit each: what ranks exchange going back."""
    more = extra.get("global_qkv") or ()
    flags = [x.requires_grad and torch.is_grad_enabled() for x in (q, k, v, *more)]
    return sum(1 << place for place, flag in enumerate(flags) if flag)


def _device_of(group: dist.ProcessGroup | None) -> torch.device:
    """Return a device that the group exchanges tensors of."""
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")


def split(x: Tensor, *, dim: int = 2, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return this rank's span of a tensor that every rank holds whole: spans as equal as can be.

    Args:
        x: equal on all ranks.
        dim: the axis of tokens, with at least one for each rank.
        group: the ranks; ``None`` = all.

    Raises:
        ValueError: if there are fewer tokens than ranks.
    """
    ranks = dist.get_world_size(group)
    if x.shape[dim] < ranks:
        raise ValueError(f"x: expected at least {ranks} tokens, one a rank, got {x.shape[dim]}")
    return x.tensor_split(ranks, dim=dim)[dist.get_rank(group)].contiguous()
