"""ListOps against an evaluator and a generator of its own, both plain Python."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from helpers_tasks import FORMS, assert_alike, assert_drawn_from, assert_uniform, many

from suites.tasks import registry
from suites.tasks.base import IGNORED, Batch, Form
from suites.tasks.expressions import length_probabilities
from suites.tasks.listops import ListOps

WORDS = [".", "?", *"0123456789", "[MAX", "[MIN", "[MED", "[SM", "]"]
APPLY = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def build(options: str, seq_len: int, form: Form = "causal") -> ListOps:
    task = registry.build(f"listops{options}", seq_len=seq_len, form=form)
    assert isinstance(task, ListOps)
    return task


def words_of(batch: Batch) -> list[list[str]]:
    """Decode each sequence, its padding left out."""
    mask = batch.key_padding_mask
    assert mask is not None
    return [
        [WORDS[i] for i, is_token in zip(ids, row, strict=True) if is_token]
        for ids, row in zip(batch.ids.tolist(), mask.tolist(), strict=True)
    ]


def evaluate(words: list[str]) -> tuple[int, int]:
    """Return value and depth (digits included) with a stack; refuse what is no expression."""
    stack: list[tuple[str, list[int]]] = []
    deepest = 0
    for place, word in enumerate(words):
        if word.startswith("["):
            stack.append((word, []))
            continue
        if word == "]":
            operator, arguments = stack.pop()
            assert 2 <= len(arguments) <= 10
            value = APPLY[operator](arguments)
        else:
            value = int(word)
            deepest = max(deepest, len(stack) + 1)
        if not stack:
            assert place == len(words) - 1
            return value, deepest
        stack[-1][1].append(value)
    raise AssertionError("a bracket is open")


def drawn_plainly(rng: random.Random, depth: int, max_depth: int, max_args: int) -> list[str]:
    """Draw a node by the published grammar, by recursion."""
    if depth == max_depth or rng.random() > 0.25:
        return [str(rng.randrange(10))]
    words = [rng.choice(list(APPLY))]
    for _ in range(rng.randint(2, max_args)):
        words += drawn_plainly(rng, depth + 1, max_depth, max_args)
    return [*words, "]"]


def plain_sample(
    count: int, *, bounds: tuple[int, int], max_depth: int, max_args: int
) -> list[list[str]]:
    """Draw whole expressions until enough have a length within the bounds."""
    rng = random.Random(0)
    sample: list[list[str]] = []
    while len(sample) < count:
        words = drawn_plainly(rng, 1, max_depth, max_args)
        if bounds[0] <= len(words) <= bounds[1]:
            sample.append(words)
    return sample


def argument_counts(words: list[str]) -> list[int]:
    counts: list[int] = []
    stack: list[int] = []
    for word in words:
        if word == "]":
            counts.append(stack.pop())
        if word.startswith("["):
            stack.append(0)
            continue
        if stack:
            stack[-1] += 1
    return counts


@pytest.mark.parametrize(
    ("options", "seq_len"),
    [
        (":min_len=8", 64),
        (":max_depth=3,max_args=4,min_len=4", 30),
        (":max_depth=2,max_args=2,min_len=4", 4),
        ("", 2000),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_what_an_evaluator_finds(options: str, seq_len: int, split: str) -> None:
    task = build(options, seq_len)
    batch = task.batch(40, seed=1, index=2, split=split)  # type: ignore[arg-type]
    assert batch.key_padding_mask is not None
    depths = []
    for words, ids, labels, mask in zip(
        words_of(batch), batch.ids, batch.labels, batch.key_padding_mask, strict=True
    ):
        assert task.min_len <= len(words) <= task.max_len
        assert mask[: len(words)].all()
        assert not mask[len(words) :].any()
        assert (ids[len(words) :] == 0).all()
        value, depth = evaluate(words)
        depths.append(depth)
        assert (labels != IGNORED).nonzero().tolist() == [[len(words) - 1]]
        assert WORDS[int(labels[len(words) - 1])] == str(value)
    assert max(depths) <= task.max_depth
    assert max(depths) == task.max_depth or seq_len == 64


def test_expressions_are_drawn_as_by_the_published_generator() -> None:
    shape = {"max_depth": 5, "max_args": 5}
    theirs = plain_sample(3000, bounds=(8, 40), **shape)
    batch = many(build(":min_len=8,max_len=40,max_depth=5,max_args=5", 40), 3000)
    ours = words_of(batch)
    for measure in (
        lambda sample: [len(words) for words in sample],
        lambda sample: [evaluate(words)[0] for words in sample],
        lambda sample: [evaluate(words)[1] for words in sample],
        lambda sample: [sum(w.startswith("[") for w in words) for words in sample],
        lambda sample: [n for words in sample for n in argument_counts(words)],
        lambda sample: [argument_counts(words)[-1] for words in sample],  # the root's
    ):
        first, second = (np.bincount(measure(s), minlength=50) for s in (ours, theirs))
        assert_alike(first, second)
    ids = batch.ids.numpy()
    assert_uniform(ids[(ids >= 2) & (ids < 12)], 2, 12)
    assert_uniform(ids[(ids >= 12) & (ids < 16)], 12, 16)


def test_lengths_have_the_probabilities_of_the_grammar() -> None:
    lengths = np.array([len(words) for words in words_of(many(build("", 300), 2000))])
    exact = length_probabilities(max_depth=10, max_args=10, max_len=300)[75:]
    counts = np.bincount(lengths, minlength=301)[75:]
    # Ten lengths together, so that each count is large enough.
    assert_drawn_from(*(np.add.reduceat(x, np.arange(0, 226, 10)) for x in (counts, exact)))


def test_the_probabilities_of_lengths_are_those_of_small_trees() -> None:
    flat = length_probabilities(max_depth=2, max_args=3, max_len=8)
    assert flat.tolist() == [0, 0, 0, 0, 0.5, 0.5, 0, 0, 0]
    nested = length_probabilities(max_depth=3, max_args=2, max_len=12)
    # Two arguments, each a digit (1 token, 3/4) or an operator with two digits (4 tokens, 1/4).
    assert np.flatnonzero(nested).tolist() == [4, 7, 10]
    np.testing.assert_allclose(nested[[4, 7, 10]], [9 / 16, 6 / 16, 1 / 16])
    whole = length_probabilities(max_depth=4, max_args=4, max_len=200)
    assert whole.sum() == pytest.approx(1.0)


def test_the_original_size_is_drawn_from_a_third_of_the_grammar() -> None:
    task = build("", 2000)
    exact = length_probabilities(max_depth=10, max_args=10, max_len=2000)
    assert (task.min_len, task.max_len) == (500, 2000)
    assert task._accepted == pytest.approx(exact[500:].sum())
    lengths = [len(words) for words in words_of(many(task, 64))]
    assert min(lengths) < 700 < 1500 < max(lengths)


def test_self_pretraining_masks_and_asks_its_own_tokens() -> None:
    task = build(":mask_ratio=0.3", 64, "bidirectional")
    plain = task.batch(500, seed=1, index=2, split="train")
    batch = task.pretraining(500, seed=1, index=2)
    assert batch.key_padding_mask is not None
    assert plain.key_padding_mask is not None
    is_asked = batch.labels != IGNORED
    tokens = batch.key_padding_mask
    assert (tokens == plain.key_padding_mask).all()
    assert (batch.labels[is_asked] == plain.ids[is_asked]).all()
    assert (batch.ids[is_asked] == 1).all()  # nothing of the answer is shown
    assert (batch.ids[~is_asked] == plain.ids[~is_asked]).all()
    assert not (is_asked & ~tokens).any()
    share = float(is_asked.sum() / tokens.sum())
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / int(tokens.sum())) ** 0.5


def test_causal_self_pretraining_asks_the_next_token() -> None:
    batch = build("", 64).pretraining(100, seed=1, index=2)
    plain = build("", 64).batch(100, seed=1, index=2, split="train")
    assert batch.key_padding_mask is not None
    assert (batch.ids == plain.ids).all()
    for ids, labels, mask in zip(batch.ids, batch.labels, batch.key_padding_mask, strict=True):
        length = int(mask.sum())
        assert (labels[: length - 1] == ids[1:length]).all()
        assert (labels[length - 1 :] == IGNORED).all()


def test_a_short_expression_asks_something_in_self_pretraining() -> None:
    task = build(":min_len=4,max_len=5,mask_ratio=0.01", 5, "bidirectional")
    assert (task.pretraining(50, seed=0, index=0).labels != IGNORED).any(dim=1).all()


def test_both_forms_read_the_same_expressions() -> None:
    first, second = (many(build("", 64, form), 20) for form in FORMS)
    assert (first.ids == second.ids).all()
    assert (first.labels == second.labels).all()
