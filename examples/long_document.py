"""Classify long documents: a Longformer encoder whose first token is global.

The global token sees all others and is seen by all; the layers make the paper's separate
projections for it as soon as `global_mask` is given.
"""

import torch
from torch import Tensor, nn

from models import TransformerEncoder


class DocumentClassifier(nn.Module):
    """Embed, encode, and read the answer off the first token."""

    def __init__(self, vocabulary: int = 1000, classes: int = 4, max_len: int = 2048) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 128)
        self.encoder = TransformerEncoder(
            num_layers=2,
            d_model=128,
            num_heads=4,
            max_len=max_len,
            attention="longformer",
            attention_options={"window": 64},
            dropout_p=0.1,
        )
        self.head = nn.Linear(128, classes)

    def forward(self, tokens: Tensor, is_token: Tensor) -> Tensor:
        """Map tokens ``[B, N]`` to scores ``[B, classes]``; `is_token` is False at padding."""
        global_mask = torch.zeros_like(is_token)
        global_mask[:, 0] = True
        hidden = self.encoder(
            self.embed(tokens), key_padding_mask=is_token, global_mask=global_mask
        )  # [B, N, 128]
        return self.head(hidden[:, 0])  # type: ignore[no-any-return]


def main() -> None:
    """Run one training step on two documents of different lengths."""
    torch.manual_seed(0)
    model = DocumentClassifier()
    tokens = torch.randint(1000, (2, 1500))
    is_token = torch.arange(1500) < torch.tensor([[1500], [900]])
    scores = model(tokens, is_token)
    loss = nn.functional.cross_entropy(scores, torch.tensor([1, 3]))
    loss.backward()
    print(f"scores {tuple(scores.shape)}, loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
