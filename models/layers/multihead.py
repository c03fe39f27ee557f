"""Multi-head attention: projections around any backend.

Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2; fewer key and value heads: Ainslie et al.
2023, arXiv 2305.13245. Axes and mask polarity as in `attention.base`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from torch import Tensor, nn

from attention.base import Attention, UnsupportedError
from attention.checks import check_bool, check_choice, check_int, check_kv_heads, check_mask
from attention.decoding.state import DecodeState
from attention.functional import without_padding
from models.layers.inner_attention import inner_attention, reach
from models.layers.positional import RotaryPositions, places_after
from models.layers.projection import (
    GlorotLinear,
    ProjectionOrder,
    QKVProjection,
    attend_sequence_first,
    check_hidden,
    picks_sequence_first,
)


class MultiheadAttention(nn.Module):
    """Project to heads, attend with a backend, project back.

    A backend may declare further inputs (`Attention.call_inputs`). A token mask is an argument of
    `forward`; a projected triple is made here, by projections that exist only for the backend that
    asks for them, and only in a call that needs them. Gates and decays of each token are made of
    `x` by the modules that the backend declares.

    Args:
        d_model: width of the input and the output.
        num_heads: H; divides `d_model`.
        attention: a registered backend's name, or a built backend.
        num_kv_heads: H_kv, heads of keys and values; divides `num_heads`; ``None`` means H.
        attention_options: the backend's constructor arguments beyond ``num_heads``, ``head_dim``
            and ``dropout_p``; only beside a name.
        dropout_p: probability of dropping an attention weight in training; only beside a name.
        bias: whether the projections have a bias.
        projection_order: for a backend that multiplies keys and values along the sequence by
            matrices that all heads share (Linformer): ``features_first`` computes ``E·(X·W)``,
            ``sequence_first`` the equal ``(E·X)·W``, ``auto`` whichever takes fewer operations.
            Other backends have the first order only. The backend's `kernel` tells which ran.
        rotary: turns queries and keys by their positions; ``None`` = they hold no position.

    Raises:
        ValueError: if heads and widths do not divide, an option is out of range, or a built
            backend has other heads or comes with options.
        TypeError: if an argument has the wrong type or the backend has no such option.
        UnsupportedError: if `dropout_p` is not 0 and the backend has no dropout.
    """

    attention: Attention

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        attention: str | Attention = "sdpa",
        num_kv_heads: int | None = None,
        attention_options: Mapping[str, Any] | None = None,
        dropout_p: float = 0.0,
        bias: bool = True,
        projection_order: ProjectionOrder = "auto",
        rotary: RotaryPositions | None = None,
    ) -> None:
        super().__init__()
        self.projection_order = check_choice(
            "projection_order", projection_order, get_args(ProjectionOrder)
        )
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.num_heads = check_int("num_heads", num_heads, minimum=1)
        if d_model % num_heads:
            raise ValueError(
                f"d_model: expected a multiple of num_heads={num_heads}, got {d_model}"
            )
        self.num_kv_heads = check_kv_heads(num_kv_heads, num_heads)
        self.head_dim = d_model // num_heads
        check_bool("bias", bias)
        self.rotary = rotary

        self.qkv = QKVProjection(
            d_model=d_model,
            num_heads=num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            bias=bias,
        )
        self.out_proj = GlorotLinear(d_model, d_model, bias=bias)

        options = dict(attention_options or {})
        self.attention = inner_attention(attention, num_heads, self.head_dim, options, dropout_p)
        # Longformer's paper starts its global projections as copies of the local ones.
        self.call_projections = nn.ModuleDict(
            {
                name: self.qkv.copied()
                for name, spec in self.attention.call_inputs.items()
                if spec.kind == "projected_qkv"
            }
        )
        self.token_gates = nn.ModuleDict(
            {
                name: spec.layer(d_model, num_heads, self.head_dim)
                for name, spec in self.attention.taken_inputs().items()
                if spec.layer is not None
            }
        )

    def forward(
        self,
        x: Tensor,
        key: Tensor | None = None,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        positions: Tensor | None = None,
        state: DecodeState | None = None,
        projected: tuple[Tensor, Tensor] | None = None,
        **call_inputs: Tensor | None,
    ) -> Tensor:
        """Attend from `x` to `key`, or to itself.

        Args:
            x: ``[B, N, d_model]``, makes the queries.
            key: ``[B, M, d_model]``, makes keys and values; ``None`` means `x`.
            is_causal: query ``i`` sees keys up to ``M - N + i`` only; must be true beside a
                state.
            key_padding_mask: bool ``[B, M]``, **True = this key takes part** (the opposite of
                ``torch.nn.MultiheadAttention``). What stands at the others leaves no trace, NaN
                and infinity included, neither in other outputs nor in any gradient.
            positions: of the tokens of `x`, int64 ``[B, N]``, for rotary ones; ``None`` = from 0
                on.
            state: what a layer that decodes has seen of `x` so far (`init_state`), causally; it
                takes the tokens in, and `key_padding_mask` says which they are.
            projected: what `project_keys` made of `key`, in its place: for a decoder, which reads
                the same keys at every step.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``.

        Returns:
            ``[B, N, d_model]``, dtype and device of `x` (under autocast: the autocast dtype).

        Raises:
            ValueError: if a shape does not fit.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request, or the
                order of the projections does not fit, or `is_causal` is false beside a state.
        """
        check_hidden("x", x, self.d_model)
        if projected is not None:
            self._check_call_inputs(call_inputs)
            self._check_read(key=key, state=state, positions=positions, **call_inputs)
            q = self.qkv.split(self.qkv.q_proj(x))
            return self._merge(
                self.attention(
                    q, *projected, is_causal=is_causal, key_padding_mask=key_padding_mask
                )
            )
        if key is None:
            key = x
        else:
            check_hidden("key", key, self.d_model)
            if state is not None:
                raise ValueError("state: goes with self-attention; got a key too")
            if self.rotary is not None:
                raise ValueError(
                    "key: rotary positions are those of one sequence; a layer between two has none"
                )
        if state is not None and not is_causal:
            raise UnsupportedError(
                "is_causal: a token that comes after a state sees no later one; expected True "
                f"beside a state, got {is_causal}"
            )
        self._check_call_inputs(call_inputs)
        if key_padding_mask is not None:
            check_mask("key_padding_mask", key_padding_mask, (key.shape[0], key.shape[1]), key)
            clean = without_padding(key, key_padding_mask)
            x, key = clean if x is key else x, clean
        if is_causal is False and state is None and self.is_sequence_first(key.shape[1]):
            return self._merge(
                attend_sequence_first(self.attention, self.qkv, x, key, key_padding_mask)
            )
        if positions is None and state is not None and self.rotary is not None:
            positions = places_after(state.lengths, x.shape[1], key_padding_mask)
        q, k, v = self._turned(self.qkv(x, key), positions)  # [B, H, N, D], 2 × [B, H_kv, M, D]
        extra = {**call_inputs, **self._project_call_inputs(x, key, positions, call_inputs)}
        if state is not None:
            out = self.attention.prefill(
                q, k, v, state, key_padding_mask=key_padding_mask, **extra
            )
        else:
            out = self.attention(
                q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask, **extra
            )  # [B, H, N, D]
        return self._merge(out, made=extra)

    def project_keys(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Make keys and values of ``[B, M, d_model]``: twice ``[B, H_kv, M, D]``."""
        check_hidden("key", key, self.d_model)
        qkv = self.qkv
        return qkv.split(qkv.k_proj(key)), qkv.split(qkv.v_proj(key))

    def _turned(
        self, qkv: tuple[Tensor, Tensor, Tensor], positions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn queries and keys by their positions, where they are rotary."""
        if self.rotary is None:
            return qkv
        q, k, v = qkv
        return self.rotary(q, positions), self.rotary(k, positions), v

    def init_state(self, **made_for: Any) -> DecodeState:
        """Make the state before the first token; arguments as of `Attention.init_state`."""
        return self.attention.init_state(num_kv_heads=self.num_kv_heads, **made_for)

    def _merge(self, out: Tensor, made: Collection[str] = ()) -> Tensor:
        """``[B, H, N, D]`` to ``[B, N, d_model]``; `made`: which call inputs were projected."""
        unused = [
            p for n, x in self.call_projections.items() if n not in made for p in x.parameters()
        ]
        return reach(self.out_proj(out.transpose(1, 2).flatten(2)), unused)

    def is_sequence_first(self, key_len: int) -> bool:
        """Whether a bidirectional call on M keys projects the sequence before the features.

        Raises:
            UnsupportedError: if the order was asked for and the backend does not have it.
        """
        return picks_sequence_first(
            self.attention, self.projection_order, self.qkv, key_len, turns=self.rotary is not None
        )

    def _check_read(self, **given: Any) -> None:
        """Refuse what a call on projected keys would ignore."""
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: of no use beside projected; expected None")
        if self.rotary is not None:
            raise ValueError(
                "projected: rotary positions are those of one sequence; a layer between two has "
                "none"
            )
        if self.projection_order == "sequence_first":
            raise UnsupportedError(
                "projection_order: the features of projected keys are made already; accepted: "
                "auto, features_first"
            )
        for name in (*self.call_projections, *self.token_gates):
            if self.attention.call_inputs[name].needed_by is None:
                raise UnsupportedError(
                    f"projected: {self.attention.name} needs {name} at every call, which is made "
                    "of key; give that"
                )

    def _check_call_inputs(self, given: Mapping[str, Any]) -> None:
        """Refuse what the backend does not take, and what this layer makes by itself."""
        declared = self.attention.call_inputs
        accepted = [n for n, spec in declared.items() if spec.kind == "token_mask"]
        for name in given:
            if name in self.call_projections or name in self.token_gates:
                source = declared[name].needed_by or "x"
                raise TypeError(f"{name}: the layer makes this input itself, from {source}")
            if name not in accepted:
                inputs = ", ".join(["is_causal", "key_padding_mask", *accepted])
                raise TypeError(
                    f"{name}: {self.attention.name} takes no such input; accepted: {inputs}"
                )

    def _project_call_inputs(
        self, x: Tensor, key: Tensor, positions: Tensor | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make the projected triples that this call needs, and the numbers of each token."""
        made: dict[str, Any] = {name: gate(x) for name, gate in self.token_gates.items()}
        for name, project in self.call_projections.items():
            needed_by = self.attention.call_inputs[name].needed_by
            if needed_by is None or given.get(needed_by) is not None:
                made[name] = self._turned(project(x, key), positions)
        return made

    def extra_repr(self) -> str:
        """Show the shape of the layer."""
        return (
            f"d_model={self.d_model}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
        )


def copy_call_projections(model: nn.Module) -> None:
    """Start the projections that only some backends have as copies of the usual ones."""
    for layer in model.modules():
        if isinstance(layer, MultiheadAttention):
            for project in layer.call_projections.values():
                project.load_state_dict(layer.qkv.state_dict())
