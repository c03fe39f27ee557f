"""A stack of blocks over embeddings with positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from attention.checks import check_choice, check_float, check_int
from attention.registry import check_options, get
from models.block import Norm, TransformerBlock
from models.feedforward import Activation
from models.positional import SinusoidalPositions
from models.projection import check_hidden


class TransformerEncoder(nn.Module):
    """Positions, then `num_layers` blocks of the same backend.

    What a backend shares between layers (Linformer's one projection for all, Wang et al. 2020,
    section 4) is made once, by `Attention.shared_options`, and given to every block. A backend
    that draws at random (an option ``seed``) gets ``seed + i`` in layer ``i``, so that the layers
    do not repeat one draw. With ``norm="pre"`` a last norm follows the stack.

    Args:
        num_layers: number of blocks.
        d_model: width of the embeddings.
        num_heads: H; divides `d_model`.
        max_len: the longest length that will be asked for, in tokens: of the positions, and of a
            backend that is built for a length (an option ``seq_len`` that is not given).
        d_ff: see `TransformerBlock`.
        attention: a registered backend's name. Layers have states of their own, so a built
            backend is not accepted here.
        attention_options: the backend's constructor arguments, for all layers.
        num_kv_heads: see `MultiheadAttention`.
        norm: ``pre`` or ``post``.
        activation: ``relu`` or ``gelu``.
        dropout_p: dropout on the sum of embeddings and positions and in the blocks.
        attention_dropout_p: dropout on the attention weights.
        bias: whether linear layers and norms have a bias.
        positions: ``sinusoidal``, or ``None`` for embeddings that hold their positions already.

    Raises:
        ValueError: if an argument is out of range or the widths do not divide.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if `attention_dropout_p` is not 0 and the backend has no dropout.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        d_model: int,
        num_heads: int,
        max_len: int,
        d_ff: int | None = None,
        attention: str = "sdpa",
        attention_options: Mapping[str, Any] | None = None,
        num_kv_heads: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        attention_dropout_p: float = 0.0,
        bias: bool = True,
        positions: Literal["sinusoidal"] | None = "sinusoidal",
    ) -> None:
        super().__init__()
        check_int("num_layers", num_layers, minimum=1)
        check_int("num_heads", num_heads, minimum=1)
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.max_len = check_int("max_len", max_len, minimum=1)
        if not isinstance(attention, str):
            raise TypeError(
                f"attention: expected a backend's name, got {type(attention).__name__}"
            )
        if positions is None:
            self.positions: nn.Module = nn.Identity()
        else:
            check_choice("positions", positions, ("sinusoidal",))
            self.positions = SinusoidalPositions(d_model=d_model, max_len=max_len)
        self.dropout = nn.Dropout(check_float("dropout_p", dropout_p, minimum=0.0, below=1.0))
        layers = layer_options(
            attention,
            dict(attention_options or {}),
            num_layers=num_layers,
            num_heads=num_heads,
            head_dim=d_model // num_heads,
            max_len=max_len,
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                d_model=d_model,
                num_heads=num_heads,
                d_ff=d_ff,
                attention=attention,
                attention_options=options,
                num_kv_heads=num_kv_heads,
                norm=norm,
                activation=activation,
                dropout_p=dropout_p,
                attention_dropout_p=attention_dropout_p,
                bias=bias,
            )
            for options in layers
        )
        self.final_norm = nn.LayerNorm(d_model, bias=bias) if norm == "pre" else nn.Identity()

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        **call_inputs: Tensor | None,
    ) -> Tensor:
        """Encode embeddings ``[B, N, d_model]``, N at most `max_len`.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: token ``i`` sees tokens up to ``i`` only.
            key_padding_mask: bool ``[B, N]``, **True = this token takes part**.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``.

        Returns:
            ``[B, N, d_model]``.

        Raises:
            ValueError: if a shape does not fit or N is above `max_len`.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        check_hidden("x", x, self.d_model)
        x = self.dropout(self.positions(x))
        for block in self.blocks:
            x = block(x, is_causal=is_causal, key_padding_mask=key_padding_mask, **call_inputs)
        out: Tensor = self.final_norm(x)
        return out


def layer_options(
    name: str,
    options: dict[str, Any],
    *,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    max_len: int,
) -> list[dict[str, Any]]:
    """Return each layer's backend options: what is shared, the length, a seed of its own."""
    cls = get(name)
    accepted = cls.options()
    if "seq_len" in accepted:
        options.setdefault("seq_len", max_len)
    check_options(cls, {"num_heads": num_heads, "head_dim": head_dim, **options})
    shared = cls.shared_options(num_heads=num_heads, head_dim=head_dim, **options)
    options = {**options, **shared}
    first = options.get("seed", accepted["seed"].default) if "seed" in accepted else None
    if first is None:  # nothing random, or every layer draws from torch's own generator
        return [options] * num_layers
    check_int("seed", first, minimum=0)
    return [{**options, "seed": first + layer} for layer in range(num_layers)]
