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
        "Exponentials and passes over the scores are O(n²) for any d: with materialised scores "
        "they are most of the time up to 256 channels.",
    ),
    Claim(
        "memory-quadratic", "Self-attention's memory is quadratic, which limits contexts.",
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
            Question("exponent of Longformer's FLOPs over that of n log n",
                     "longformer_to_nlogn", 0.98, 1.02),
            Question("exponent of BigBird's FLOPs over that of n log n",
                     "bigbird_to_nlogn", 0.98, 1.02),
            Question("exponent of time, Longformer", backend="longformer"),
            Question("exponent of time, BigBird", backend="bigbird"),
        ),
        "They cost less, O(n): the claim holds as an upper bound, not as the growth.",
    ),
    Claim(
        "low-rank-linear", "Linformer is O(n).",
        (
            _exponent("exponent of time", "linformer", "latency", 1),
            _exponent("exponent of memory", "linformer", "peak_memory", 1),
        ),
        "At a fixed rank; which rank a length needs is a question of quality.",
    ),
    Claim(
        "kernel-linear", "Performer is O(n).",
        (
            _exponent("exponent of time", "performer", "latency", 1),
            _exponent("exponent of time, causal", "performer", "latency", 1, is_causal=True),
            _exponent("exponent of memory", "performer", "peak_memory", 1),
            _exponent("exponent of memory, causal", "performer", "peak_memory", 1,
                      is_causal=True),
        ),
    ),
    Claim(
        "heads-cost", "More heads raise compute and memory.",
        (
            Question("time, 16 heads / 1 head, 64 channels each", "time_ratio_fixed_dim", 1.1),
            Question("time, 16 heads / 1 head, total width 512, materialised",
                     "time_ratio_fixed_width", 1.1),
            Question("memory, 16 heads / 1 head, total width 512", "memory_ratio_fixed_width",
                     1.1),
            Question("time, 16 heads / 1 head, total width 512, fused",
                     "fused_ratio_fixed_width", 1.1),
        ),
        "At a fixed total width the matmuls cost the same, but each head has its own scores and "
        "exponentials.",
    ),
    Claim(
        "head-dim", "Splitting the width over heads keeps the cost.",
        (
            Question("matmul FLOPs, 8 heads / 1 head", "ops_ratio", 0.99, 1.01),
            Question("time, 8 heads / 1 head", "time_ratio", 0.8, 1.25),
            Question("exponentials, 8 heads / 1 head", "exponentials_ratio"),
        ),
        "Matmuls stay the same; exponentials grow with the number of heads.",
    ),
    Claim(
        "rnn-sequential",
        "An RNN runs step by step and cannot be parallelised; attention can.",
        (
            Question("speed-up by all threads over one, LSTM", "lstm_speedup", high=1.2),
            Question("speed-up by all threads over one, transformer block", "block_speedup", 1.2),
            Question("time, LSTM / transformer block", "time_ratio"),
        ),
        "At 512 tokens of 256 channels, one sequence.",
    ),
    Claim(
        "rnn-vanishing",
        "Recurrent state forgets the beginning; attention reaches it in one step.",
        (
            Question("gradient at the first of 256 tokens, attention / LSTM (log10)",
                     "log10_apart", 1.0),
        ),
        "At random initialisation; gradients relative to that at the last token.",
    ),
    Claim(
        "long-range", "Any token can use any other, whatever the distance.",
        (
            Question("accuracy of recall in the far half, exact attention",
                     "sdpa_far_accuracy", 0.95),
            Question("the same, window of 4", "longformer_far_accuracy"),
        ),
        "Exact attention, sequences of 32 tokens; windows reach farther with more layers.",
    ),
    Claim(
        "sqrt-dk", "Dividing by √d_k keeps softmax out of its flat region.",
        (
            Question("variance of a score / d_k", "variance_per_dim", 0.8, 1.25),
            Question("entropy at d_k = 1,024 / at 4, scaled", "scaled_entropy_ratio", 0.8, 1.25),
            Question("entropy at d_k = 1,024 / at 4, not scaled", "unscaled_entropy_ratio",
                     high=0.5),
            Question("gradient at d_k = 1,024, scaled / not scaled", "gradient_ratio", 10.0),
        ),
    ),
    Claim(
        "shared-qk", "Queries and keys need separate weights.",
        (
            Question("accuracy of recall lost by sharing them", "lost_accuracy", 0.01),
            Question("accuracy of recall with shared weights", "tied_accuracy"),
            Question("asymmetry of the scores, separate weights", "apart_asymmetry"),
            Question("asymmetry of the scores, shared weights", "tied_asymmetry"),
        ),
        "On this task. Apart from positions, shared weights make scores symmetric.",
    ),
    Claim(
        "dot-vs-additive", "Dot-product attention is cheaper than additive attention.",
        (
            Question("time, additive / dot product", "time_ratio", 1.1),
            Question("memory, additive / dot product", "memory_ratio", 1.1),
        ),
        "At 256 tokens and 64 channels, both materialised.",
    ),
    Claim(
        "causal-mask", "Masking hides the future.",
        (
            Question("largest change of the past when the future changes, all causal backends",
                     "largest_change", high=1e-6),
            Question("change of the past without the mask", "unmasked_change", 1e-2),
            Question("backends tested", "backends"),
        ),
    ),
    Claim(
        "kv-cache", "Caching keys and values cuts the latency of decoding.",
        (
            Question("time per token after 1,024, without / with cache", "time_ratio", 1.5),
            Question("exponent of the time per token in the context, with cache",
                     "cached_exponent"),
            Question("the same, without cache", "anew_exponent"),
        ),
    ),
    Claim(
        "decode-state", "Windowed and kernel attention decode in constant time and memory.",
        (
            Question("KV cache after 4,096 tokens / after 512, Longformer",
                     "longformer_bytes_ratio", 0.9, 1.1),
            Question("recurrent state after 4,096 tokens / after 512, Performer",
                     "performer_bytes_ratio", 0.9, 1.1),
            Question("time per step after 4,096 tokens / after 512, Longformer",
                     "longformer_time_ratio", 0.67, 1.5),
            Question("time per step after 4,096 tokens / after 512, Performer",
                     "performer_time_ratio", 0.67, 1.5),
            Question("KV cache after 4,096 tokens / after 512, exact attention",
                     "sdpa_bytes_ratio"),
        ),
    ),
    Claim(
        "quantization", "Weights of 8 and 4 bits shrink a model with little loss.",
        (
            Question("size, int8 / bfloat16", "int8_bytes_to_bfloat16", high=0.75),
            Question("bits per byte, int8 / bfloat16", "int8_bits_to_bfloat16", high=1.01),
            Question("size, int4 / bfloat16", "int4_bytes_to_bfloat16", high=0.6),
            Question("bits per byte, int4 / bfloat16", "int4_bits_to_bfloat16", high=1.05),
        ),
        "A small, briefly trained text model; only weights of linear layers are quantized.",
    ),
    Claim(
        "sinusoidal", "Sinusoidal positions extrapolate to longer sequences.",
        (
            Question("bits per byte at 4 × the trained length / at 1 ×, sinusoidal",
                     "sinusoidal_at_4", high=1.05),
            Question("the same, learned positions", "learned_at_4"),
            Question("the same, rotary positions", "rotary_at_4"),
        ),
    ),
    Claim(
        "residual-norm", "Residuals and layer norm keep deep stacks trainable.",
        (
            Question("gradient at the input, 32 layers / 1 layer (log10), both", "log10_both",
                     -1.5, 1.5),
            Question("gradient at the input, 32 layers / 1 layer (log10), neither",
                     "log10_neither", high=-1.5),
            Question("the same, residuals only", "log10_residuals_alone"),
            Question("the same, norm only", "log10_norm_alone"),
        ),
        "At random initialisation.",
    ),
    Claim(
        "layernorm-batch", "Layer norm does not depend on the batch, batch norm does.",
        (
            Question("change of a sequence's output with the batch, layer norm",
                     "layer_norm_change", high=1e-6),
            Question("change of a sequence's output with the batch, batch norm",
                     "batch_norm_change", 1e-2),
        ),
    ),
    Claim(
        "dropout-eval", "Dropout is off at inference.",
        (
            Question("largest change between two calls in eval mode, all backends",
                     "largest_change_eval", high=1e-7),
            Question("smallest change in training mode", "smallest_change_training", 1e-2),
            Question("backends tested", "backends"),
        ),
    ),
    Claim(
        "dropout-place", "Dropout acts on attention weights before the softmax.",
        (
            Question("deviation of row sums from 1, fused attention",
                     "row_sums_deviation_fused", high=1e-3),
            Question("deviation of row sums from 1, torch's layer", "row_sums_deviation_layer",
                     high=1e-3),
            Question("deviation of row sums from 1, if it acted before",
                     "row_sums_deviation_before"),
        ),
        "It acts after the softmax: rows no longer sum to one.",
    ),
    Claim(
        "order-blind", "Without positions attention does not know order.",
        (
            Question("change of the output when tokens are permuted (and put back in order)",
                     "change_without_positions", high=1e-5),
            Question("change of the output with sinusoidal positions", "change_with_positions",
                     1e-2),
        ),
    ),
    Claim(
        "sequential-depth", "An RNN needs O(n) sequential steps, attention O(1).",
        (
            Question("exponent in n of the longest chain of operations, LSTM", "lstm_exponent",
                     0.9, 1.1),
            Question("exponent in n of the longest chain of operations, attention",
                     "attention_exponent", -0.1, 0.1),
            Question("longest chain of operations at 64 tokens, LSTM", "lstm_chain"),
            Question("the same, attention", "attention_chain"),
        ),
    ),
    Claim(
        "ffn-nonlinear", "Attention alone mixes linearly in V; the feed-forward layer does not.",
        (
            Question("error of superposition in V, attention", "attention_error", high=1e-5),
            Question("error of superposition in V, with the feed-forward layer",
                     "with_feed_forward_error", 1e-2),
        ),
    ),
    Claim(
        "objectives",
        "Encoders learn masked tokens, decoders the next, encoder-decoders sequences.",
        (
            Question("share of the loss left after 30 steps, worst backend, next token",
                     "next_loss_left", high=0.98),
            Question("share of the loss left after 30 steps, worst backend, masked tokens",
                     "masked_loss_left", high=0.98),
            Question("share of the loss left after 30 steps, worst backend, sequence to sequence",
                     "denoise_loss_left", high=0.98),
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
