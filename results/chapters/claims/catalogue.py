"""The claims: what papers say of costs and learning, each as a question to the records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["supported", "refuted", "inconclusive", "not_run"]


@dataclass(frozen=True)
class Question:
    """One value, and where it has to lie.

    Attributes:
        says: what the value is, for people.
        name: of the experiment's value; empty for an exponent.
        low: the claim holds from here …
        high: … to here; both infinite: told, but no ground of the verdict.
        backend: of an exponent: whose forward call it is about.
        metric: of an exponent: latency or peak_memory.
        is_causal: of an exponent.
    """

    says: str
    name: str = ""
    low: float = -math.inf
    high: float = math.inf
    backend: str = ""
    metric: str = "latency"
    is_causal: bool = False

    @property
    def decides(self) -> bool:
        """Whether it is a ground of the verdict."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def wanted(self) -> str:
        """Where the value has to lie, in words."""
        if not self.decides:
            return "–"
        if self.high == math.inf:
            return f"at least {self.low:g}"
        if self.low == -math.inf:
            return f"at most {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Claim:
    """What is said.

    Attributes:
        id: a word of the project's.
        text: the claim.
        questions: what decides it.
        note: what a reader should know of the verdict.
    """

    id: str
    text: str
    questions: tuple[Question, ...]
    note: str = ""


def _exponent(says: str, backend: str, metric: str, near: float, **more: Any) -> Question:
    return Question(says, backend=backend, metric=metric, low=near - 0.2, high=near + 0.2, **more)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "attention-quadratic", "Self-attention costs O(n²·d).",
        (
            _exponent("exponent of time in n, materialised", "full", "latency", 2),
            _exponent("exponent of time in n, fused", "sdpa", "latency", 2),
            Question("exponent of time in d, fused", "sdpa_dim_exponent", 0.8, 1.2),
            Question("exponent of time in d, materialised", "full_dim_exponent"),
        ),
        "The exponentials and passes over the scores are O(n²) whatever d: materialised, they are "
        "most of the time up to 256 channels.",
    ),
    Claim(
        "memory-quadratic", "Its memory is quadratic, hence the limits of contexts.",
        (
            _exponent("exponent of memory, materialised", "full", "peak_memory", 2),
            _exponent("exponent of memory, fused", "sdpa", "peak_memory", 2),
        ),
        "Materialised scores are quadratic; exact attention need not materialise them.",
    ),
    Claim(
        "ffn-linear", "The feed-forward layer costs O(n·d²).",
        (
            Question("exponent of time in n", "length_exponent", 0.8, 1.2),
            Question("exponent of time in d", "width_exponent", 1.7, 2.3),
        ),
    ),
    Claim(
        "sparse-nlogn", "Longformer and BigBird cost O(n log n).",
        (
            Question("exponent of Longformer's operations, by that of n log n",
                     "longformer_to_nlogn", 0.98, 1.02),
            Question("of BigBird's", "bigbird_to_nlogn", 0.98, 1.02),
            Question("exponent of time, Longformer", backend="longformer"),
            Question("exponent of time, BigBird", backend="bigbird"),
        ),
        "They cost less: O(n). As an upper bound the claim is true, as a growth it is not.",
    ),
    Claim(
        "low-rank-linear", "Linformer is O(n).",
        (
            _exponent("exponent of time", "linformer", "latency", 1),
            _exponent("exponent of memory", "linformer", "peak_memory", 1),
        ),
        "At a fixed rank; what rank a length needs is a question of quality.",
    ),
    Claim(
        "kernel-linear", "Performer is O(n).",
        (
            _exponent("exponent of time", "performer", "latency", 1),
            _exponent("causal", "performer", "latency", 1, is_causal=True),
            _exponent("exponent of memory", "performer", "peak_memory", 1),
            _exponent("causal", "performer", "peak_memory", 1, is_causal=True),
        ),
    ),
    Claim(
        "heads-cost", "More heads raise compute and memory.",
        (
            Question("time of 16 heads by that of 1, 64 channels each",
                     "time_ratio_fixed_dim", 1.1),
            Question("in one width of 512, materialised", "time_ratio_fixed_width", 1.1),
            Question("memory in one width", "memory_ratio_fixed_width", 1.1),
            Question("in one width, fused", "fused_ratio_fixed_width", 1.1),
        ),
        "Products are the same in one width; scores and exponentials are one matrix a head.",
    ),
    Claim(
        "head-dim", "Splitting the width over heads keeps the cost.",
        (
            Question("operations of products, 8 heads by 1", "ops_ratio", 0.99, 1.01),
            Question("time", "time_ratio", 0.8, 1.25),
            Question("exponentials", "exponentials_ratio"),
        ),
        "Products stay, exponentials multiply by the heads.",
    ),
    Claim(
        "rnn-sequential",
        "An RNN runs step by step and cannot be parallelised; attention can.",
        (
            Question("LSTM, all threads: times as fast as one", "lstm_speedup", high=1.2),
            Question("transformer block, likewise", "block_speedup", 1.2),
            Question("time of the LSTM by that of the block", "time_ratio"),
        ),
        "At 512 tokens of 256 channels, one sequence.",
    ),
    Claim(
        "rnn-vanishing",
        "Recurrent state forgets the beginning; attention reaches it in one step.",
        (
            Question("powers of ten between attention's gradient at the first of 256 tokens and "
                     "an LSTM's", "log10_apart", 1.0),
        ),
        "At random initialisation; each beside the gradient at the last token.",
    ),
    Claim(
        "long-range", "Any token can use any other, whatever the distance.",
        (
            Question("accuracy of recall in the far half, exact attention",
                     "sdpa_far_accuracy", 0.95),
            Question("window of 4", "longformer_far_accuracy"),
        ),
        "Of exact attention, in sequences of 32 tokens; a window reaches as far as its layers "
        "carry.",
    ),
    Claim(
        "sqrt-dk", "Dividing by √d_k keeps softmax out of its flat region.",
        (
            Question("variance of a score by d_k", "variance_per_dim", 0.8, 1.25),
            Question("entropy at d_k = 1,024 by that at 4, scaled",
                     "scaled_entropy_ratio", 0.8, 1.25),
            Question("not scaled", "unscaled_entropy_ratio", high=0.5),
            Question("gradient at 1,024, scaled by not scaled", "gradient_ratio", 10.0),
        ),
    ),
    Claim(
        "shared-qk", "Queries and keys need separate weights.",
        (
            Question("accuracy of recall lost by sharing them", "lost_accuracy", 0.01),
            Question("accuracy with shared weights", "tied_accuracy"),
            Question("asymmetry of the scores, apart", "apart_asymmetry"),
            Question("shared", "tied_asymmetry"),
        ),
        "On this task; shared weights make scores symmetric, positions aside.",
    ),
    Claim(
        "dot-vs-additive", "Dot-product attention is cheaper than additive attention.",
        (
            Question("time of additive by that of dot products", "time_ratio", 1.1),
            Question("memory", "memory_ratio", 1.1),
        ),
        "At 256 tokens and 64 channels, both materialised.",
    ),
    Claim(
        "causal-mask", "Masking hides the future.",
        (
            Question("largest change of the past when the future changes, of all causal backends",
                     "largest_change", high=1e-6),
            Question("without the mask", "unmasked_change", 1e-2),
            Question("backends asked", "backends"),
        ),
    ),
    Claim(
        "kv-cache", "Caching keys and values cuts the latency of decoding.",
        (
            Question("time a token without the cache by that with it, after 1,024", "time_ratio",
                     1.5),
            Question("exponent of the time a token in the context, with it", "cached_exponent"),
            Question("without", "anew_exponent"),
        ),
    ),
    Claim(
        "decode-state", "Windowed and kernel attention decode in constant time and memory.",
        (
            Question("state after 4,096 tokens by that after 512, Longformer",
                     "longformer_bytes_ratio", 0.9, 1.1),
            Question("Performer", "performer_bytes_ratio", 0.9, 1.1),
            Question("time a step, Longformer", "longformer_time_ratio", 0.67, 1.5),
            Question("Performer", "performer_time_ratio", 0.67, 1.5),
            Question("state of exact attention", "sdpa_bytes_ratio"),
        ),
    ),
    Claim(
        "quantization", "Weights of 8 and 4 bits shrink a model with little loss.",
        (
            Question("bytes in int8 by bfloat16", "int8_bytes_to_bfloat16", high=0.75),
            Question("bits per byte", "int8_bits_to_bfloat16", high=1.01),
            Question("bytes in int4 by bfloat16", "int4_bytes_to_bfloat16", high=0.6),
            Question("bits per byte", "int4_bits_to_bfloat16", high=1.05),
        ),
        "A small model of text, briefly trained; weights of linear layers alone.",
    ),
    Claim(
        "sinusoidal", "Sinusoidal positions extrapolate to longer sequences.",
        (
            Question("bits per byte at 4 times the trained length by those at it, sinusoidal",
                     "sinusoidal_at_4", high=1.05),
            Question("learned", "learned_at_4"),
            Question("rotary", "rotary_at_4"),
        ),
    ),
    Claim(
        "residual-norm", "Residuals and layer norm keep deep stacks trainable.",
        (
            Question("powers of ten between the gradients at the input of 32 layers and of 1, "
                     "with both", "log10_both", -1.5, 1.5),
            Question("neither", "log10_neither", high=-1.5),
            Question("residuals alone", "log10_residuals_alone"),
            Question("norm alone", "log10_norm_alone"),
        ),
        "At random initialisation.",
    ),
    Claim(
        "layernorm-batch", "Layer norm does not depend on the batch, batch norm does.",
        (
            Question("change of a sequence's output among others, layer norm",
                     "layer_norm_change", high=1e-6),
            Question("batch norm", "batch_norm_change", 1e-2),
        ),
    ),
    Claim(
        "dropout-eval", "Dropout is off at inference.",
        (
            Question("largest change between two calls in eval mode, of all backends",
                     "largest_change_eval", high=1e-7),
            Question("smallest in training", "smallest_change_training", 1e-2),
            Question("backends asked", "backends"),
        ),
    ),
    Claim(
        "dropout-place", "Dropout acts on attention weights before the softmax.",
        (
            Question("deviation of the sums of rows, fused attention",
                     "row_sums_deviation_fused", high=1e-3),
            Question("torch's layer", "row_sums_deviation_layer", high=1e-3),
            Question("if it acted before", "row_sums_deviation_before"),
        ),
        "It acts after the softmax: rows do not sum to one any more.",
    ),
    Claim(
        "order-blind", "Without positions attention does not know order.",
        (
            Question("change by a permutation that the output is taken back through",
                     "change_without_positions", high=1e-5),
            Question("with sinusoidal positions", "change_with_positions", 1e-2),
        ),
    ),
    Claim(
        "sequential-depth", "An RNN needs O(n) sequential steps, attention O(1).",
        (
            Question("exponent of the longest chain in n, LSTM", "lstm_exponent", 0.9, 1.1),
            Question("attention", "attention_exponent", -0.1, 0.1),
            Question("operations in a row at 64 tokens, LSTM", "lstm_chain"),
            Question("attention", "attention_chain"),
        ),
    ),
    Claim(
        "ffn-nonlinear", "Attention alone mixes linearly in V; the feed-forward layer does not.",
        (
            Question("error of superposition in V, attention", "attention_error", high=1e-5),
            Question("with the feed-forward layer", "with_feed_forward_error", 1e-2),
        ),
    ),
    Claim(
        "objectives",
        "Encoders learn masked tokens, decoders the next, encoder-decoders sequences.",
        (
            Question("largest share of the loss left after 30 steps, of all backends: next token",
                     "next_loss_left", high=0.98),
            Question("masked", "masked_loss_left", high=0.98),
            Question("sequence to sequence", "denoise_loss_left", high=0.98),
            Question("trainings", "trainings"),
        ),
    ),
)  # fmt: skip
"""In the order in which they are shown."""


def describe() -> list[dict[str, Any]]:
    """Return the claims as plain values: id, claim, note, and questions with what is expected."""
    return [
        {
            "id": claim.id, "claim": claim.text, "note": claim.note,
            "questions": [
                {"question": q.says, "expected": q.wanted if q.decides else None}
                for q in claim.questions
            ],
        }
        for claim in CLAIMS
    ]  # fmt: skip
