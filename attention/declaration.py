"""What a backend declares, and what it is asked before a call: options, reasons, extra inputs."""

from __future__ import annotations

import inspect
import math
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attention.call_inputs import check_call_inputs, clean_tokens
from attention.checks import (
    UnsupportedError,
    check_float,
    check_int,
    dtype_names,
)
from attention.functional import without_padding
from attention.kernels.onednn import is_faster_here
from attention.problem import Approximates, CallInput, Family, Problem, Supports


class Declared(nn.Module):
    """What a class declares that mixes tokens: a backend, or a layer that stands in its place."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    family: ClassVar[Family]
    exact: ClassVar[bool]
    approximates: ClassVar[Approximates | None] = None
    """What it comes near to: softmax, a pattern of its own, or itself alone; ``None`` = unsaid."""
    supports: ClassVar[Supports]
    has_reference: ClassVar[bool] = True
    """Whether a formula and a cost are written down: not those of a plain function."""
    time_exponent: ClassVar[float]
    memory_exponent: ClassVar[float]
    decode_time_exponent: ClassVar[float] = 1.0
    """Of one step in the tokens before it, where `supports` has a state; 1 = a cache is read."""
    decode_memory_exponent: ClassVar[float] = 1.0
    """Of the state's size, likewise."""
    call_inputs: ClassVar[Mapping[str, CallInput]] = {}
    refusals: ClassVar[Mapping[str, str]] = {}
    """Why a declared ``False`` in `supports` is so, by field: one clause for the error."""

    @classmethod
    def why_not(cls, what: str) -> str:
        """Return why a declared ``False`` is so, as a clause in brackets, or nothing."""
        return f" ({cls.refusals[what]})" if what in cls.refusals else ""

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """Return the constructor's arguments, by name, with defaults and annotations."""
        parameters = inspect.signature(cls.__init__).parameters
        return {name: p for name, p in parameters.items() if name != "self"}

    @classmethod
    def shared_options(cls, **options: Any) -> dict[str, Any]:
        """Make what all layers of a stack share, as options for each layer's constructor.

        An encoder calls this once with the options it will build every layer with. The default
        shares nothing.
        """
        return {}

    def fixed_sizes(self) -> Mapping[str, int]:
        """Name what stands in for the N keys of a query: keys or features, by what they are.

        A method gains where they are fewer than N; the default is that there are none.
        """
        return {}


class Declaration(Declared, ABC):
    """The part of `attention.base.Attention` that says what a backend is and serves.

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

    whole_in_transforms: ClassVar[bool] = False
    """Whether torch.func's transforms are shown `attend` as one function, run again for each
    derivative: for autograd functions of one's own and decisions on the host."""
    reads_values: ClassVar[bool] = False
    """Whether `attend` decides by values of its inputs. Such a backend without parameters answers
    a call on tensors that hold none (a batch of 0, the meta device, fake tensors) by an output of
    the right shape."""

    rows_apart: ClassVar[bool] = False
    """Whether a padded batch is computed row by row: of no use to pack documents into one."""

    kernel: str
    """Which kernel the last call ran, e.g. ``flash_attention_for_cpu``; ``""`` before a call.

    An option of that name is what was asked for, and is kept as ``kernel_choice``."""

    kernel_choice: str
    cuda_kernel: ClassVar[str]
    """What ``auto`` runs on CUDA, where the option `kernel` chooses between it and ``tiled``."""

    def __init__(
        self, *, num_heads: int, head_dim: int, scale: float | None = None, dropout_p: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = check_int("num_heads", num_heads, minimum=1)
        self.head_dim = check_int("head_dim", head_dim, minimum=1)
        self.scale = (
            1.0 / math.sqrt(head_dim) if scale is None else check_float("scale", scale, above=0.0)
        )
        self.dropout_p = check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        if self.dropout_p and not self.supports.dropout:
            raise UnsupportedError(
                f"dropout_p: {type(self).__name__} has no dropout on attention weights; "
                f"got {dropout_p}, accepted is 0"
            )
        is_faster_here()
        self.kernel = ""
        self._served: tuple[Any, ...] | None = None  # the last plain call that was accepted

    @classmethod
    def unavailable_reasons(cls, device: str) -> list[str]:
        """Say why this backend cannot run on this machine's `device`; empty = it can."""
        if device == "meta":  # shapes without values
            return []
        if device not in cls.supports.dtypes:
            return [f"device: {cls.name} runs on {', '.join(cls.supports.dtypes)}, not {device}"]
        is_here: dict[str, Callable[[], bool]] = {
            "cuda": torch.cuda.is_available,
            "mps": torch.backends.mps.is_available,
            "xpu": torch.xpu.is_available,
        }
        if device in is_here and not is_here[device]():
            return [f"device: torch sees no {device.upper()} device here"]
        return []

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Say why a call on `problem` would be refused; empty = it will run.

        Backends extend the list with reasons of their own.
        """
        supports, name = self.supports, self.name
        reasons = self.unavailable_reasons(problem.device)
        served = supports.dtypes.get(problem.device, ())
        if served and problem.dtype not in served:
            reasons.append(
                f"dtype: {name} on {problem.device} takes {dtype_names(served)}, "
                f"not {dtype_names((problem.dtype,))}"
            )
        if problem.is_causal and not supports.causal:
            reasons.append(f"is_causal: {name} is bidirectional only{self.why_not('causal')}")
        if not problem.is_causal and not supports.bidirectional:
            why = self.why_not("bidirectional")
            reasons.append(f"is_causal: {name} is causal only{why}; expected True, got False")
        if problem.v_dim != problem.head_dim and not supports.value_dim:
            reasons.append(
                f"v: {name} needs values as wide as keys{self.why_not('value_dim')}; "
                f"got D={problem.head_dim}, D_v={problem.v_dim}"
            )
        if not supports.cross and problem.seq_len != problem.key_len:
            reasons.append(
                f"k: {name} needs as many keys as queries{self.why_not('cross')}; "
                f"got N={problem.seq_len}, M={problem.key_len}"
            )
        if problem.key_padding and not supports.key_padding:
            reasons.append(f"key_padding_mask: {name} takes no mask")
        return reasons

    def kernel_on(self, device: str) -> str:
        """Return the kernel that a call on `device` runs: ``tiled`` or the class's `cuda_kernel`.

        Of backends with that choice alone.
        """
        if self.kernel_choice != "auto":
            return self.kernel_choice
        return self.cuda_kernel if device == "cuda" else "tiled"

    def lse_reasons(self, problem: Problem) -> list[str]:
        """Say why a call on `problem` would not return its log-sum-exp; empty = it will."""
        if getattr(self, "sink", None) is not None:
            return ["return_lse: no sum of scores beside a sink, which is in none; expected none"]
        if self.supports.log_sum_exp:
            return []
        return [f"return_lse: {self.name} returns no log-sum-exp; full and sdpa do"]

    def clean_padding(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        extra: Mapping[str, Any],
        *,
        queries: bool,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Replace what stands at padding by zeros, in the inputs and in projected triples.

        Args:
            q: ``[B, H, N, D]``.
            k: ``[B, H_kv, M, D]``.
            v: ``[B, H_kv, M, D_v]``.
            mask: bool ``[B, M]``, True = takes part.
            extra: the call's further inputs, validated.
            queries: whether a padded token's query is padding too.
        """

        def cleaned(triple: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            query, key, value = triple
            key, value = without_padding(key, mask), without_padding(value, mask)
            return without_padding(query, mask) if queries else query, key, value

        declared, clean = self.taken_inputs(), dict(extra)
        for name, x in extra.items():
            if isinstance(x, tuple):
                clean[name] = cleaned((x[0], x[1], x[2]))
            elif declared[name].is_of_tokens:
                clean[name] = clean_tokens(x, mask)
        return *cleaned((q, k, v)), clean

    def taken_inputs(self) -> Mapping[str, CallInput]:
        """Return the extra inputs that calls of this module take: of the declared, by its options.

        A backend whose options settle an input leaves it out here, or makes another required.
        """
        return self.call_inputs

    def check_call_inputs(self, q: Tensor, k: Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the declared extra inputs of a call, validated; those left out are absent."""
        return check_call_inputs(self.name, self.taken_inputs(), q, k, given)

    @property
    def active_dropout_p(self) -> float:
        """The dropout probability of this call: 0 in eval mode."""
        return self.dropout_p if self.training else 0.0

    def extra_repr(self) -> str:
        """Show every option that is kept under its own name."""
        values = {n: getattr(self, n, None) for n in self.options()}
        if "kernel" in values:  # under its own name stands what ran
            values["kernel"] = getattr(self, "kernel_choice", None)
        if values.get("sink") is not None:  # the option's name is the parameter's
            values["sink"] = True
        shown = {
            n: value for n, value in values.items() if isinstance(value, int | float | str | tuple)
        }
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())
