"""A backend in a layer of one's own: projections here, attention by name."""

import torch
from torch import Tensor, nn

import attention


class MyLayer(nn.Module):
    """Causal self-attention; another name gives another method."""

    def __init__(self, width: int = 512, num_heads: int = 8, name: str = "performer") -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attend = attention.build(name, num_heads=num_heads, head_dim=width // num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, width]`` to ``[B, N, width]``."""
        heads = self.attend.num_heads
        q, k, v = self.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, N, D]
        out = self.attend(q, k, v, is_causal=True)  # [B, H, N, D]
        return self.out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def main() -> None:
    """Run one training step for each causal backend that runs here."""
    x = torch.randn(2, 1000, 512)
    for name in attention.names():
        about = attention.describe(name)
        if not about["causal"] or about["unavailable"]["cpu"]:
            continue
        layer = MyLayer(name=name)
        out = layer(x)
        out.square().mean().backward()
        print(f"{name}: {tuple(x.shape)} -> {tuple(out.shape)}")


if __name__ == "__main__":
    main()
