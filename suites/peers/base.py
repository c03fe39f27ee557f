"""The contract of a peer: another library's attention, measured as an arm beside our counterpart.

Peer and counterpart are called with the same inputs. What both hold, a learned or random matrix
say, is copied from the peer into ours, and so are projections: then ours is wrapped in copies of
them, and those projections alone are a third arm, so that their time can be subtracted.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attention.base import Attention
from results.schema import Case, Mode

SEQ_LEN = 4096
"""Length at which a peer is measured where no option says otherwise, in tokens."""


@dataclass(frozen=True)
class Projections:
    """The linear maps that a peer carries around its attention.

    Attributes:
        query: ``d_model`` to ``H·D``, head after head.
        key: likewise.
        value: likewise.
        output: ``H·D`` to ``d_model``; ``None`` = the peer returns the heads side by side.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear | None = None


@dataclass(frozen=True)
class Built:
    """A peer ready to be called.

    Attributes:
        module: called as ``module(*inputs, is_causal=...)``. Without projections the inputs are
            q, k and v, each ``[B, H, N, D]``, and so is the output; with them x and the output
            are ``[B, N, H·D]``. ``is_causal`` is what the case says.
        projections: those inside `module`, to be copied; ``None`` = it has none.
        kernel: which of the library's functions runs, for the record.
    """

    module: nn.Module
    projections: Projections | None = None
    kernel: str = ""


class AsBuilt(nn.Module):
    """Call a library's module with the inputs alone: what it computes, it was built for.

    Args:
        theirs: the module.
    """

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, *inputs: Tensor, is_causal: bool) -> Tensor:
        """Attend; shapes as in `Built`."""
        out = self.theirs(*inputs)
        assert isinstance(out, Tensor)
        return out


class Peer(ABC):
    """Another library's attention. Subclasses declare themselves and build.

    Attributes:
        name: how the command calls it; `suites.peers.registry.register` sets it.
        summary: one line: what it is.
        project: where it comes from: authors and paper, or the project.
        distribution: the package that holds it; its version goes into the record.
        install: the command that installs it.
        counterpart: our backend.
        options: of the counterpart.
        num_projections: 0, or how many projections of width ``H·D`` it carries.
        whole_layer: whether only the layer as a whole is compared: ours then projects in the
            order that takes fewer operations, and nothing is subtracted.
        same_function: whether both compute the same function of the inputs; then a difference
            beyond rounding fails the case.
        difference: what is not the same; "" if `same_function`.
        devices: where it runs.
        modes: what it can do.
        causal: whether it has a causal form.
        rows: the causalities that the suite measures where no option says otherwise.
        is_compiled: its first call compiles.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    project: ClassVar[str]
    distribution: ClassVar[str]
    install: ClassVar[str]
    counterpart: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    num_projections: ClassVar[int] = 0
    whole_layer: ClassVar[bool] = False
    same_function: ClassVar[bool]
    difference: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    modes: ClassVar[tuple[Mode, ...]] = ("forward", "training")
    causal: ClassVar[bool] = False
    rows: ClassVar[tuple[bool, ...]] = (False,)
    is_compiled: ClassVar[bool] = False

    @property
    def subtracts_projections(self) -> bool:
        """Whether the projections alone are an arm."""
        return self.num_projections > 0 and not self.whole_layer

    @abstractmethod
    def load(self) -> None:
        """Import what the peer needs.

        Raises:
            ImportError: if it is not installed, or not usable here.
        """

    @abstractmethod
    def build(self, ours: Attention, case: Case) -> Built:
        """Build the peer for a case, in float32 on the CPU, with our options; draw from torch.

        Args:
            ours: the counterpart, built with its options. What both must hold alike is copied
                into it here.
            case: gives shape, causality and seed. The caller moves the module to its device.
        """

    def seq_len(self, mode: Mode, *, is_causal: bool) -> int:
        """Return the length that the suite measures where no option says otherwise, in tokens."""
        return SEQ_LEN

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Say what of a case's shape, mode or dtype the peer does not accept; empty = all."""
        return []

    def unavailable_reasons(self, device: str) -> list[str]:
        """Say why the peer cannot run on this machine's `device`; empty = it can."""
        if device not in self.devices:
            return [f"device: {self.name} runs on {', '.join(self.devices)}, not {device}"]
        if device == "cuda" and not torch.cuda.is_available():
            return ["device: torch sees no CUDA device here"]
        try:
            with warnings.catch_warnings():  # a library's deprecations are its own
                warnings.simplefilter("ignore")
                self.load()
        except ImportError as error:
            return [f"{self.name} cannot be imported ({error}); install it with: {self.install}"]
        return []

    def unsupported_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Say why the peer cannot serve a case beside `ours`; empty = it can."""
        if reasons := self.unavailable_reasons(case.device):
            return reasons
        if case.mode not in self.modes:
            reasons.append(f"mode: {self.name} has {', '.join(self.modes)}, not {case.mode}")
        if case.is_causal and not self.causal:
            reasons.append(f"is_causal: {self.name} has no causal form")
        if case.num_kv_heads != case.num_heads:
            reasons.append(
                f"num_kv_heads: peers are measured with as many as there are heads, "
                f"{case.num_heads}; got {case.num_kv_heads}"
            )
        if case.key_len != case.seq_len:
            reasons.append(
                f"key_len: peers are measured in self-attention over {case.seq_len} tokens; "
                f"got {case.key_len}"
            )
        return reasons + self.shape_reasons(ours, case)

    def version(self) -> str:
        """Return distribution and version, as the record names them."""
        try:
            return f"{self.distribution} {importlib.metadata.version(self.distribution)}"
        except importlib.metadata.PackageNotFoundError:
            return f"{self.distribution}, version unknown"
