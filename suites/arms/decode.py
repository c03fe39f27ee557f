"""Mode ``decode``: the step of a decoder, one token after a context, at any level.

The context is fed in chunks before anything is timed, and one token by a step of its own, so that
what a step prepares for those that follow is there (BigBird's index of a row of blocks). There the
state is marked: every sample goes back to the mark, untimed, and takes the same next token. So a
cache is measured at its length; what comes once in many steps is left out: a window that moves its
tokens to the front of its buffers, a new row of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attention.base import Attention
from attention.decoding.chunk import Chunk
from attention.decoding.state import DecodeState
from models import ModelState
from results.schema import Case
from suites.arms.arm import REORDERED, ArmRunner, check_same, follows_recurrence
from suites.arms.build import STEPPED, Inputs, Mixer, dtype_of
from suites.arms.token_inputs import of_tokens
from suites.kind import metrics
from suites.measure.gate import Call, reduced_floor

CHUNK = 512
"""Tokens of the context that are fed at a time: materialised scores of all would not fit."""


class Stepper(ArmRunner):
    """An arm that decodes; arguments as of `ArmRunner`. Run it under ``torch.inference_mode``."""

    def __init__(self, mixer: Mixer, module: nn.Module, inputs: Inputs, case: Case) -> None:
        super().__init__(mixer, module, inputs, case)
        self.last = case.seq_len + STEPPED - 1
        with torch.inference_mode():
            self.state = self._fed()
        self.mark = self.state.mark()
        self.step = self._taking(self.state, self.last, self.last + 1)

    def prepare(self) -> None:
        """Take the last token back."""
        self.output = None
        self.state.rewind(self.mark)

    def call(self) -> None:
        """Take the token after the context."""
        self.output = self.step()

    def settle(self) -> None:
        """Keep the output."""

    def memory(self) -> dict[str, Any]:
        """Call once more; return the metric of what is kept of the context and the token."""
        self.prepare()
        with torch.inference_mode():
            self.call()
        return metrics(state_bytes=self.state.nbytes)

    def _new_state(self) -> DecodeState | ModelState:
        case, tokens = self.case, self.case.seq_len + STEPPED
        if case.level == "model":
            return self.module.init_state(batch_size=case.batch, max_len=tokens)  # type: ignore[no-any-return, operator]
        heads = {"num_kv_heads": case.num_kv_heads} if case.level == "attention" else {}
        return self.module.init_state(  # type: ignore[no-any-return, operator]
            batch_size=case.batch, max_len=tokens, dtype=dtype_of(case), device=case.device,
            **heads,
        )  # fmt: skip

    def _fed(self) -> Any:
        """Make a state that holds the context and one token."""
        state = self._new_state()
        for start, stop in _chunks(self.case.seq_len):
            self._taking(state, start, stop)()
        self._taking(state, self.last - 1, self.last)()
        return state

    def _taking(self, state: Any, start: int, stop: int) -> Callable[[], Tensor]:
        """Make the call that feeds the tokens from `start` to `stop`."""
        axis = 2 if self.case.level == "attention" else 1
        tokens = [x.narrow(axis, start, stop - start) for x in self.inputs.tensors]
        if self.case.level == "attention":
            assert isinstance(self.mixer, Attention)
            q, k, v = tokens
            take = self.mixer.step if stop - start == 1 else self.mixer.prefill
            extra = {n: x.narrow(2, start, stop - start) for n, x in self.extra.items()}
            return partial(take, q, k, v, state, **extra)
        how = {} if self.case.level == "model" else {"is_causal": True}
        return partial(self.module, *tokens, state=state, **how)

    def gate_call(self) -> Call:
        """Return the step as a call on the whole sequence, of which it is the last row.

        Within a layer, block or model the sequence is fed once more, with what goes into the
        backend and comes out recorded; the step's output must be that of the last sample.
        """
        assert isinstance(self.mixer, Attention)
        assert self.output is not None
        last = torch.tensor([self.last], device=self.case.device)
        if self.case.level == "attention":
            q, k, v = self.inputs.tensors
            return Call(self.mixer, q, k, v, True, self.output, rows=last, extra=self.extra)
        seen: list[tuple[Tensor, ...]] = []
        more: list[dict[str, Tensor]] = []
        advance = self.mixer.advance

        def record(chunk: Chunk, state: Any, **extra: Any) -> Tensor:
            out = advance(chunk, state, **extra)
            seen.append((chunk.q, chunk.k, chunk.v, out))
            more.append(of_tokens(self.mixer, extra))
            return out

        self.mixer.advance = record  # type: ignore[method-assign]
        try:
            self._repeat()
        finally:
            del self.mixer.advance
        q, k, v = (torch.cat(parts, dim=2) for parts in list(zip(*seen, strict=True))[:3])
        together = {name: torch.cat([part[name] for part in more], dim=2) for name in more[0]}
        return Call(self.mixer, q, k, v, True, seen[-1][3], rows=last, extra=together)

    def check_recurrence(self) -> dict[str, Any]:
        """Hold the beginning against the recurrence, and the step against a call on all tokens."""
        verdict = follows_recurrence(self, self._repeat)
        with torch.inference_mode():
            if self.case.level == "model":
                whole = self.module(*self.inputs.tensors)
            else:
                whole = self.module(*self.inputs.tensors, is_causal=True)
        check_same("output", self.output, whole[:, -1:], self._budget(REORDERED))
        return verdict

    def _repeat(self) -> None:
        """Feed the whole sequence to a new state; the step must come out as the last one did."""
        with torch.inference_mode():
            state = self._fed()
            again = self._taking(state, self.last, self.last + 1)()
        check_same("output", self.output, again, self._budget())

    def _budget(self, times: float = 1.0) -> float:
        return times * reduced_floor(dtype_of(self.case), self.case.matmul_precision)


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, CHUNK):
        yield start, min(start + CHUNK, count)
