"""Random-feature attention of the package performer-pytorch.

Choromanski et al. 2021, arXiv 2009.14794; ``FastAttention``. The random features are copied into
ours and never drawn anew. It adds 1e-4 to every feature, and causally 1e-6 to the sums of the
keys, which the paper's formula does not: apart from that both compute the same.
"""

from __future__ import annotations

import contextlib
import io

import torch

from attention.backends.performer import PerformerAttention
from attention.base import Attention
from results.schema import Case, Mode
from suites.peers.base import SEQ_LEN, AsBuilt, Built, Peer
from suites.peers.registry import register


@register("performer-pytorch")
class PerformerPytorch(Peer):
    """Feature maps and products over the whole sequence; causal over chunks of 128."""

    summary = "FastAttention (FAVOR+)"
    project = "performer-pytorch; Choromanski et al. 2021, arXiv 2009.14794"
    distribution = "performer-pytorch"
    install = "pip install performer-pytorch"
    counterpart = "performer"
    options = {"num_features": 256}
    same_function = False
    difference = "it adds 1e-4 to every feature, a bias that the paper's formula does not have"
    causal = True
    rows = (False, True)

    def seq_len(self, mode: Mode, *, is_causal: bool) -> int:
        """Train causally at 1024 tokens: it keeps a state of R·D numbers for every token."""
        return 1024 if is_causal and mode == "training" else SEQ_LEN

    def load(self) -> None:
        """Import the class."""
        from performer_pytorch.performer_pytorch import FastAttention  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse another scale, and ReLU features."""
        assert isinstance(ours, PerformerAttention)
        reasons = []
        if ours.features != "softmax":
            reasons.append(f"features: expected 'softmax', got {ours.features!r}")
        if abs(ours.scale * case.head_dim**0.5 - 1) > 1e-6:
            reasons.append(f"scale: it has 1/sqrt(head_dim) built in; got {ours.scale}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the module, and give ours its random features."""
        from performer_pytorch.performer_pytorch import FastAttention

        assert isinstance(ours, PerformerAttention)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints which kernel it takes
            theirs = FastAttention(
                case.head_dim, nb_features=ours.num_features, causal=case.is_causal
            )
        with torch.no_grad():
            ours.projection.copy_(theirs.projection_matrix)
        run = theirs.causal_linear_fn if case.is_causal else None
        kernel = "linear_attention" if run is None else getattr(run, "func", run).__name__
        return Built(AsBuilt(theirs), kernel=kernel)
