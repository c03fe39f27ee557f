"""Recall, copying, induction, needle: how they are drawn, and their labels in plain Python."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers_tasks import FORMS, asked, assert_drawn_from, assert_uniform, many

from suites.tasks import registry
from suites.tasks.base import IGNORED, Form, Task, generator
from suites.tasks.copying import Copying
from suites.tasks.drawing import distinct
from suites.tasks.induction import Induction
from suites.tasks.needle import Needle
from suites.tasks.recall import Recall

# A label from what stands up to its place: what a causal model has seen.


def recalled(task: Recall, seen: list[int]) -> int:
    front = seen[: 2 * task.num_pairs]
    return dict(zip(front[0::2], front[1::2], strict=True))[seen[-1]]


def copied(task: Copying, seen: list[int]) -> int:
    separator = seen.index(1)
    symbols = [token for token in seen[:separator] if token != 0]
    return symbols[len(seen) - 1 - separator]


def induced(task: Induction, seen: list[int]) -> int:
    assert seen.count(seen[-1]) == 2
    return seen[seen.index(seen[-1]) + 1]


def found(task: Needle, seen: list[int]) -> int:
    haystack = seen[: seen.index(1)]
    marks = [place for place, token in enumerate(haystack) if token == 0]
    return {haystack[m + 1]: haystack[m + 2] for m in marks}[seen[-1]]


LABELS = {
    "recall": recalled, "copy": copied, "selective_copy": copied, "induction": induced,
    "needle": found,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("arm", "seq_len"),
    [
        ("recall", 64),
        ("recall:num_pairs=9,filler=noise,gaps=power,min_gap=3", 65),
        ("recall:num_pairs=3,vocab_size=1000,num_queries=2", 48),
        ("copy", 64),
        ("copy:num_symbols=5,num_letters=30", 64),
        ("selective_copy", 64),
        ("selective_copy:num_symbols=32", 64),
        ("induction", 64),
        ("induction:num_triggers=16", 64),
        ("needle", 256),
        ("needle:num_needles=5", 64),
        ("needle:num_needles=3,hay=needles", 64),
    ],
)
def test_labels_follow_from_what_stands_before_them(arm: str, seq_len: int, form: Form) -> None:
    task = registry.build(arm, seq_len=seq_len, form=form)
    label_of = LABELS[task.name]
    count = 0
    for split in ("train", "test"):
        for ids, place, label in asked(task.batch(40, seed=0, index=0, split=split)):
            if task.name == "recall" and place < 2 * task.num_pairs:
                assert (form, split, place % 2) == ("bidirectional", "train", 0)
                assert label == ids[place + 1]  # at a key's first place: what follows it
                continue
            if task.name == "induction" and ids[: place + 1].count(ids[place]) == 1:
                assert (form, split) == ("bidirectional", "train")
                assert label == ids[place + 1]  # likewise
                continue
            assert label == label_of(task, ids[: place + 1])  # type: ignore[operator]
            count += 1
    per_row = {
        "recall": "num_queries", "copy": "num_symbols", "selective_copy": "num_symbols",
        "induction": "num_triggers", "needle": "num_needles",
    }[task.name]  # fmt: skip
    assert count == 80 * task.settings[per_row]


# -- recall -----------------------------------------------------------------------------------


def build(arm: str, seq_len: int, form: Form = "causal") -> Task:
    return registry.build(arm, seq_len=seq_len, form=form)


def test_recall_asks_wherever_a_key_comes_again() -> None:
    task = build("recall", 64)
    assert isinstance(task, Recall)
    batch = many(task, 200)
    behind = batch.ids[:, 8:]
    assert ((behind > 0) == (batch.labels[:, 8:] != IGNORED)).all()
    assert (behind < task.first_value).all()  # no value stands behind the pairs


def test_recalls_pairs_do_not_repeat_a_key_or_a_value() -> None:
    task = build("recall:num_pairs=8,vocab_size=18", 64)
    assert isinstance(task, Recall)
    for row in many(task, 300).ids[:, :16].tolist():
        assert len(set(row)) == 16
        assert max(row[0::2]) < task.first_value <= min(row[1::2])


def test_recalls_groups_are_distances_to_the_keys_first_place() -> None:
    batch = many(build("recall:num_pairs=6", 64), 200)
    groups = batch.groups
    assert groups is not None
    rows = np.nonzero(batch.labels.numpy() != IGNORED)
    for row, place in zip(*rows, strict=True):
        ids = batch.ids[row].tolist()
        assert groups[row, place] == place - ids.index(ids[place])


@pytest.mark.parametrize("filler", ["blank", "noise"])
def test_recall_draws_keys_values_and_places_alike(filler: str) -> None:
    task = build(f"recall:gaps=uniform,filler={filler}", 40)
    assert isinstance(task, Recall)
    batch = many(task, 4000)
    front = batch.ids[:, :8].numpy()
    assert_uniform(front[:, 0::2], 1, task.first_value)
    assert_uniform(front[:, 1::2], task.first_value, 64)
    places = np.nonzero(batch.labels.numpy() != IGNORED)[1]
    assert_uniform(places, 8, 40)
    asked_pair = (batch.labels[:, :, None] == batch.ids[:, None, 1:8:2]).any(dim=1).sum(dim=0)
    assert asked_pair.tolist() == [4000] * 4
    if filler == "noise":
        assert_uniform(batch.ids[:, 8:][batch.labels[:, 8:] == IGNORED].numpy(), 1, 64)


def test_a_share_of_the_pairs_is_asked_each_as_often() -> None:
    batch = many(build("recall:num_queries=1", 64), 4000)
    which = (batch.labels.max(dim=1).values[:, None] == batch.ids[:, 1:8:2]).nonzero()[:, 1]
    assert_uniform(which.numpy(), 0, 4)


@pytest.mark.parametrize("power", [0.01, 0.5, 1])
def test_recalls_power_law_is_the_papers(power: float) -> None:
    task = build(f"recall:num_queries=1,gaps=power,power={power},min_gap=4", 36)
    places = np.nonzero(many(task, 5000).labels.numpy() != IGNORED)[1]
    counts = np.bincount(places, minlength=36)
    expected = np.zeros(36)
    expected[12:] = np.arange(1.0, 25.0) ** (power - 1)
    assert_drawn_from(counts, expected)


# -- copying ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["copy", "selective_copy"])
def test_copying_shows_the_answers_to_the_causal_form_only(arm: str) -> None:
    causal, masked = (build(arm, 64, form) for form in FORMS)
    assert isinstance(causal, Copying)
    first, second = many(causal, 50), many(masked, 50)
    behind = causal.separator + 1
    assert (first.labels == second.labels).all()
    assert (first.ids[:, :behind] == second.ids[:, :behind]).all()
    assert (first.ids[:, behind:] == first.labels[:, behind - 1 : -1]).all()
    assert (second.ids[:, behind:] == 2).all()  # a mask


def test_copies_have_one_distance_the_whole_delay() -> None:
    batch = many(build("copy:num_symbols=10", 64), 20)
    assert batch.groups is not None
    assert set(batch.groups[batch.labels != IGNORED].tolist()) == {54}
    assert (batch.ids[:, 10:54] == 0).all()


def test_selective_copy_scatters_symbols_alike() -> None:
    task = build("selective_copy:num_symbols=6", 32)
    batch = many(task, 4000)
    context = batch.ids[:, :26].numpy()
    rows, places = np.nonzero(context)
    assert_uniform(places, 0, 26)
    assert_uniform(context[rows, places], 3, 19)
    assert batch.groups is not None
    distances = batch.groups[batch.labels != IGNORED].numpy().reshape(4000, 6)
    assert (distances == np.arange(26, 32) - places.reshape(4000, 6)).all()


def test_copy_draws_letters_alike_and_apart() -> None:
    symbols = many(build("copy", 16), 4000).ids[:, :8].numpy()
    for place in range(8):
        assert_uniform(symbols[:, place], 3, 19)
    assert_uniform((symbols[:, 0] - 3) * 16 + symbols[:, 1] - 3, 0, 256)


# -- induction --------------------------------------------------------------------------------


def test_every_arrangement_of_a_trigger_is_as_likely() -> None:
    batch = many(build("induction:num_triggers=1", 9), 5000)
    places = [tuple(np.flatnonzero(row == 1)) for row in batch.ids.numpy()]
    possible = [
        (first, second)
        for first, second in itertools.combinations(range(8), 2)
        if second - first >= 2
    ]
    assert set(places) == set(possible)
    assert_drawn_from([places.count(p) for p in possible], np.ones(len(possible)))


def test_triggers_interleave_in_every_order() -> None:
    ids = many(build("induction:num_triggers=2", 32), 4000).ids.numpy()
    orders = ["".join(map(str, row[(row == 1) | (row == 2)])) for row in ids]
    possible = sorted(set(map("".join, itertools.permutations("1122"))))
    assert_drawn_from([orders.count(order) for order in possible], np.ones(6))
    assert len(orders) == sum(orders.count(order) for order in possible)


def test_behind_a_triggers_second_place_nothing_is_told() -> None:
    task = build("induction", 64)
    assert isinstance(task, Induction)
    batch = many(task, 2000)
    ids, labels = batch.ids.numpy(), batch.labels.numpy()
    rows, places = np.nonzero(labels != IGNORED)
    assert (ids[rows, places + 1] == 0).all()
    assert ((ids == 0).sum(axis=1) == 4).all()
    # The other letters know nothing of the answers: the one in front of a question, for one.
    assert batch.groups is not None
    before, is_apart = ids[rows, places - 1], batch.groups.numpy()[rows, places] > 2
    is_letter = (before >= task.first_letter) & is_apart
    agreeing = (before == labels[rows, places])[is_letter]
    assert abs(agreeing.mean() - 1 / 16) < 5 * (1 / 16 / len(agreeing)) ** 0.5
    assert_uniform(ids[ids >= task.first_letter], task.first_letter, task.vocab_size)


def test_inductions_groups_are_distances_between_the_places() -> None:
    batch = many(build("induction", 64), 200)
    assert batch.groups is not None
    for row, place in zip(*np.nonzero(batch.labels.numpy() != IGNORED), strict=True):
        ids = batch.ids[row].tolist()
        assert batch.groups[row, place] == place - ids.index(ids[place])


# -- needle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hay", ["own", "needles"])
def test_needles_stand_at_every_depth_as_often(hay: str) -> None:
    task = build(f"needle:hay={hay}", 103)
    assert isinstance(task, Needle)
    batch = many(task, 4000)
    assert batch.groups is not None
    starts = np.nonzero(batch.ids.numpy() == 0)[1]  # one a row
    percents = batch.groups[batch.labels != IGNORED].numpy()
    assert len(starts) == len(percents) == 4000
    assert_uniform(percents // 10, 0, 11)
    assert (percents % 10 == 0).all()
    assert (starts == np.floor(percents / 100 * 98 + 0.5)).all()  # 101 of haystack, 3 of needle
    rows = np.arange(4000)
    ids = batch.ids.numpy()
    assert (ids[rows, starts + 1] == ids[:, -1]).all()
    assert_uniform(ids[rows, starts + 1], 2, task.first_value)
    first_hay = {"own": 42, "needles": 2}[hay]  # 62 tokens in three or two kinds
    assert_uniform(ids[rows, starts + 2], task.first_value, {"own": 42, "needles": 64}[hay])
    is_hay = np.ones((4000, 101), dtype=bool)
    for step in range(3):
        is_hay[rows, starts + step] = False
    assert_uniform(ids[:, :101][is_hay], first_hay, 64)


def test_a_single_depth_is_the_place_of_all() -> None:
    batch = many(build("needle:depth=0.3", 103), 50)
    assert batch.groups is not None
    assert set(np.nonzero(batch.ids.numpy() == 0)[1].tolist()) == {29}
    assert set(batch.groups[:, -1].tolist()) == {30}


def test_several_needles_are_asked_in_any_order() -> None:
    task = build("needle:num_needles=3,depth=0+0.5+1", 64)
    batch = many(task, 3000)
    assert batch.groups is not None
    orders = [tuple(row) for row in batch.groups[:, -3:].tolist()]
    possible = list(itertools.permutations([0, 50, 100]))
    assert set(orders) == set(possible)
    assert_drawn_from([orders.count(order) for order in possible], np.ones(6))
    assert (batch.ids[:, -3:].sort(dim=1).values.diff(dim=1) > 0).all()  # different keys


# -- drawing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [5, 17])  # by sorting all, by Floyd's algorithm
def test_distinct_numbers_are_alike_in_every_order(below: int) -> None:
    drawn = distinct(generator(0, 0, "train"), 8000, 2, below)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    counts = np.bincount(drawn[:, 0] * below + drawn[:, 1], minlength=below * below)
    assert_drawn_from(counts, (~np.eye(below, dtype=bool)).ravel())
    assert np.bincount(distinct(generator(0, 0, "train"), 1, 5, 5)[0]).tolist() == [1] * 5
