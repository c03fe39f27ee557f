"""torch's own layer, with its four projections, beside our `sdpa`."""

import torch
from torch import Tensor, nn

from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer, Projections
from suites.peers.registry import register


@register("torch-multihead")
class TorchMultihead(Peer):
    """torch.nn.MultiheadAttention without its weights as output."""

    summary = "torch.nn.MultiheadAttention"
    project = "PyTorch"
    distribution = "torch"
    install = "pip install torch"
    counterpart = "sdpa"
    num_projections = 4
    same_function = True

    def load(self) -> None:
        """Import what is optional: here nothing."""

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the layer, and take its one weight for q, k and v apart."""
        layer = nn.MultiheadAttention(
            case.num_heads * case.head_dim, case.num_heads, batch_first=True
        )
        query, key, value = (linear(weight) for weight in layer.in_proj_weight.chunk(3))
        return Built(Call(layer), Projections(query, key, value, layer.out_proj), "forward")


class Call(nn.Module):
    """The layer, called as every peer is: ``[B, N, d_model]`` in and out."""

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *, is_causal: bool) -> Tensor:
        """Attend within the sequence; it is asked for what it declares alone: not causal."""
        out: Tensor = self.layer(x, x, x, need_weights=False)[0]
        return out


def linear(weight: Tensor) -> nn.Linear:
    """Return a projection with this weight; the layer's biases start at zero."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made
