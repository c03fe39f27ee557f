"""A stack of blocks over embeddings with positions."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from torch import Tensor, nn

from attention.checks import check_choice
from models.embeddings import check_documents
from models.layers.block import BlockOptions
from models.layers.pattern import Names, Options
from models.layers.positional import SinusoidalPositions
from models.layers.projection import check_hidden
from models.stack import TransformerStack


class TransformerEncoder(TransformerStack):
    """Positions, then `num_layers` blocks.

    With ``norm="pre"`` a last norm follows the stack.

    Args:
        num_layers: number of blocks.
        d_model: width of the embeddings.
        num_heads: H; divides `d_model`.
        max_len: the longest length that will be asked for, in tokens: of the positions, and of a
            backend that is built for a length (an option ``seq_len`` that is not given).
        attention: see `TransformerStack`.
        attention_options: likewise.
        checkpointing: likewise.
        positions: ``sinusoidal``, or ``None`` for embeddings that hold their positions already.
        **block: further arguments of every `TransformerBlock`; `dropout_p` acts on the sum of
            embeddings and positions too.

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
        attention: Names = "sdpa",
        attention_options: Options | None = None,
        checkpointing: bool = False,
        positions: Literal["sinusoidal"] | None = "sinusoidal",
        **block: Unpack[BlockOptions],
    ) -> None:
        super().__init__(
            num_layers=num_layers,
            d_model=d_model,
            num_heads=num_heads,
            max_len=max_len,
            attention=attention,
            attention_options=attention_options,
            checkpointing=checkpointing,
            **block,
        )
        self.positions: SinusoidalPositions | None = None
        if positions is not None:
            check_choice("positions", positions, ("sinusoidal",))
            self.positions = SinusoidalPositions(d_model=d_model, max_len=max_len)
        self.dropout = nn.Dropout(block.get("dropout_p", 0.0))

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        **call_inputs: Any,
    ) -> Tensor:
        """Encode embeddings ``[B, N, d_model]``, N at most `max_len`.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: token ``i`` sees tokens up to ``i`` only.
            key_padding_mask: bool ``[B, N]``, **True = this token takes part**.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``, and
                ``packed`` (`attention.Packed`): documents in one row, each with positions from 0
                on, and itself at most `max_len` long.

        Returns:
            ``[B, N, d_model]``.

        Raises:
            ValueError: if a shape does not fit or N is above `max_len`.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        check_hidden("x", x, self.d_model)
        packed = call_inputs.get("packed")
        if packed is not None:
            check_documents(packed, x, self.max_len)
        places = None if packed is None else packed.positions_of(x)
        for name in ("states", "positions", "memory"):
            if name in call_inputs:  # it would go on from position 0
                raise TypeError(
                    f"{name}: an encoder counts its positions from 0 and reads one sequence; "
                    "TransformerModel decodes"
                )
        x = self.dropout(x if self.positions is None else self.positions(x, places))
        return super().forward(
            x, is_causal=is_causal, key_padding_mask=key_padding_mask, **call_inputs
        )
