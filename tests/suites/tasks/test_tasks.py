"""What every synthetic task keeps: its form, its splits, its stream, its errors."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers_tasks import FORMS, assert_uniform, many

from attention.base import UnsupportedError
from results.schema import Arm
from suites.tasks import base, registry
from suites.tasks.base import IGNORED, Batch, Form, Task

ARMS = [
    ("recall", 64),
    ("recall:filler=noise,gaps=uniform,num_queries=2,min_gap=5", 63),
    ("copy", 64),
    ("copy:num_symbols=10", 37),
    ("selective_copy", 64),
    ("induction", 64),
    ("needle", 256),
    ("needle:depth=0.25+0.75,num_needles=2,hay=needles", 50),
    ("listops:min_len=8", 64),
]

# Of each, the least options and shortest sequences: almost all that can be drawn is drawn below.
SMALLEST = [
    ("recall:num_pairs=2,vocab_size=22", 6),
    ("copy:num_symbols=3", 6),
    ("selective_copy:num_symbols=3", 8),
    ("induction:num_triggers=1,num_letters=4", 8),
    ("needle:vocab_size=14,depth=0.5,hay=needles", 7),
    ("needle:vocab_size=20,depth=0.5", 8),
    ("listops:min_len=4,max_len=5", 6),
]


def build(arm: str, seq_len: int, form: Form = "causal") -> Task:
    return registry.build(arm, seq_len=seq_len, form=form)


def digest(batch: Batch) -> str:
    text = b"".join(t.numpy().astype("<i8").tobytes() for t in (batch.ids, batch.labels))
    return hashlib.blake2b(text, digest_size=4).hexdigest()


# -- every task -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("arm", "seq_len"), ARMS)
def test_a_batch_has_the_documented_form(arm: str, seq_len: int, form: Form) -> None:
    task = build(arm, seq_len, form)
    assert task.architecture == {"causal": "decoder", "bidirectional": "encoder"}[form]
    for split in ("train", "test"):
        batch = task.batch(5, seed=0, index=0, split=split)
        is_asked = batch.labels != IGNORED
        assert batch.ids.shape == batch.labels.shape == (5, seq_len)
        assert batch.ids.dtype == batch.labels.dtype == torch.int64
        assert int(batch.ids.min()) >= 0
        assert int(batch.ids.max()) < task.vocab_size
        assert bool(is_asked.any(dim=1).all())
        assert bool((batch.labels[is_asked] >= 0).all())
        assert bool((batch.labels[is_asked] < task.vocab_size).all())
        assert (batch.groups is None) == (task.group == "")
        if batch.groups is not None:
            assert batch.groups.shape == batch.ids.shape
            assert batch.groups.dtype == torch.int64
        if batch.key_padding_mask is not None:
            assert bool(batch.key_padding_mask[is_asked].all())


@pytest.mark.parametrize(("arm", "seq_len"), ARMS)
def test_a_batch_depends_on_seed_index_and_split_alone(arm: str, seq_len: int) -> None:
    task = build(arm, seq_len)
    first = task.batch(8, seed=1, index=2, split="train")
    task.batch(3, seed=9, index=9, split="test")
    again = build(arm, seq_len).batch(8, seed=1, index=2, split="train")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if a is not None)
    for seed, index, split in ((2, 2, "train"), (1, 3, "train"), (1, 2, "test")):
        other = task.batch(8, seed=seed, index=index, split=split)
        assert not torch.equal(first.ids, other.ids)


PINNED: dict[tuple[str, Form], tuple[str, str]] = {
    ("recall", "causal"): ("8fce5f33", "75dda513"),
    ("recall", "bidirectional"): ("1dd3909e", "75dda513"),
    ("recall:filler=noise,gaps=uniform,num_queries=2,min_gap=5", "causal"): (
        "b9ab06bc",
        "71231dc0",
    ),
    ("recall:filler=noise,gaps=uniform,num_queries=2,min_gap=5", "bidirectional"): (
        "35d23066",
        "71231dc0",
    ),
    ("copy", "causal"): ("f60a4671", "5e910745"),
    ("copy", "bidirectional"): ("cafa182c", "aad30580"),
    ("copy:num_symbols=10", "causal"): ("76e705f5", "c0646a98"),
    ("copy:num_symbols=10", "bidirectional"): ("27cc64b0", "e21ef013"),
    ("selective_copy", "causal"): ("a6d5b89d", "ba397406"),
    ("selective_copy", "bidirectional"): ("00cb19de", "e380f1aa"),
    ("induction", "causal"): ("04193746", "d45f2964"),
    ("induction", "bidirectional"): ("79108986", "d45f2964"),
    ("needle", "causal"): ("a74d961b", "dc6e2a46"),
    ("needle", "bidirectional"): ("a74d961b", "dc6e2a46"),
    ("needle:depth=0.25+0.75,num_needles=2,hay=needles", "causal"): ("ea46daea", "6d78334d"),
    ("needle:depth=0.25+0.75,num_needles=2,hay=needles", "bidirectional"): (
        "ea46daea",
        "6d78334d",
    ),
    ("listops:min_len=8", "causal"): ("efe21e11", "1541d062"),
    ("listops:min_len=8", "bidirectional"): ("efe21e11", "1541d062"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("arm", "seq_len"), ARMS)
def test_the_same_seed_gives_the_same_batch_on_any_machine(
    arm: str, seq_len: int, form: Form
) -> None:
    task = build(arm, seq_len, form)
    drawn = tuple(digest(task.batch(4, seed=3, index=5, split=s)) for s in ("train", "test"))
    assert drawn == PINNED[arm, form]


def test_pretraining_draws_the_same_on_any_machine() -> None:
    drawn = [
        digest(build("listops:min_len=8", 64, form).pretraining(4, seed=3, index=5))
        for form in FORMS
    ]
    assert drawn == ["f6d72648", "94f01266"]


@pytest.mark.parametrize(("arm", "seq_len"), ARMS)
def test_chance_is_the_share_of_the_most_frequent_label(arm: str, seq_len: int) -> None:
    task = build(arm, seq_len)
    labels = many(task, 3000).labels
    counts = np.bincount(labels[labels != IGNORED].numpy())
    share = counts.max() / counts.sum()
    # The largest of several counts lies above its mean; five deviations cover both.
    assert abs(share - task.chance) < 5 * math.sqrt(task.chance / counts.sum())
    if arm.partition(":")[0] != "listops":
        seen = np.flatnonzero(counts)
        assert len(seen) == round(1 / task.chance)
        assert_uniform(labels[labels != IGNORED].numpy(), int(seen[0]), int(seen[-1]) + 1)


@pytest.mark.parametrize(("arm", "seq_len"), ARMS)
def test_test_batches_are_as_many_sequences_as_asked(arm: str, seq_len: int) -> None:
    task = build(arm, seq_len)
    batches = list(task.test_batches(4, 10, seed=1))
    assert [len(b.ids) for b in batches] == [4, 4, 2]
    assert torch.equal(batches[1].ids, task.batch(4, seed=1, index=1, split="test").ids)


# -- splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("arm", "seq_len"), SMALLEST)
def test_training_and_test_share_no_sequence_whatever_the_seeds(
    arm: str, seq_len: int, form: Form
) -> None:
    task = build(arm, seq_len, form)
    train, test = (
        {
            row.tobytes()
            for seed in range(4)
            for row in task.batch(2000, seed=seed, index=seed, split=split).ids.numpy()
        }
        for split in ("train", "test")
    )
    assert len(train) > 1000
    assert len(test) > 500
    assert not train & test


def test_the_splits_of_recall_share_no_set_of_pairs_in_any_order() -> None:
    task = build("recall:num_pairs=2,vocab_size=22", 6)
    train, test = (
        {
            frozenset([(a, b), (c, d)])
            for seed in range(4)
            for a, b, c, d in task.batch(4000, seed=seed, index=0, split=split).ids[:, :4].tolist()
        }
        for split in ("train", "test")
    )
    possible = math.comb(10, 2) * 11 * 10
    assert not train & test
    assert len(train | test) > 0.95 * possible  # and nothing is left out
    assert abs(len(test) / possible - base.TEST_SHARE) < 0.05


def test_the_splits_of_selective_copy_share_no_symbols_wherever_they_stand() -> None:
    task = build("selective_copy:num_symbols=3", 8)
    train, test = (
        {tuple(row) for row in many(task, 8000, split=split).labels[:, -3:].tolist()}
        for split in ("train", "test")
    )
    assert not train & test
    assert len(train | test) > 0.8 * 16**3


def test_the_hash_that_decides_on_a_split_is_the_same_everywhere() -> None:
    rows = np.arange(40).reshape(20, 2)
    assert np.flatnonzero(base.is_test(rows)).tolist() == [3, 12]
    padded = np.concatenate([rows, np.zeros((20, 3), dtype=np.int64)], axis=1)
    assert (base.is_test(padded) == base.is_test(rows)).all()
    assert (base.is_test(rows[:, ::-1]) != base.is_test(rows)).any()
    large = np.random.default_rng(0).integers(0, 1000, (100_000, 3))
    assert abs(base.is_test(large).mean() - base.TEST_SHARE) < 0.007


# -- the registry -----------------------------------------------------------------------------


def test_the_registry_finds_a_file_a_task() -> None:
    mine = {"copy", "induction", "listops", "needle", "recall", "selective_copy"}
    assert mine <= set(registry.names())
    assert registry.names() == sorted(registry.names())


def test_describe_lists_every_task_with_its_defaults() -> None:
    rows = {row["name"]: row for row in registry.describe()}
    assert list(rows) == registry.names()
    assert rows["recall"]["options"]["num_pairs"]["default"] == 4
    assert rows["needle"]["options"]["depth"]["default"][-1] == 1.0
    assert rows["needle"]["seq_len"] == 256
    assert (rows["recall"]["group"], rows["needle"]["group"]) == ("distance", "depth")
    for row in rows.values():
        assert row["summary"]
        assert row["paper"]
        assert not {"seq_len", "form"} & set(row["options"])


def test_an_arm_and_its_text_build_the_same_task() -> None:
    arm = Arm("needle", {"depth": [0.25, 0.5], "num_needles": 2})
    task = registry.build(arm, form="causal")
    assert task.seq_len == 256
    assert task.settings == {
        "depth": [0.25, 0.5],
        "num_needles": 2,
        "hay": "own",
        "vocab_size": 64,
    }
    other = registry.build(arm.label, form="causal")
    assert torch.equal(many(task, 3).ids, many(other, 3).ids)


def test_settings_are_the_options_in_force() -> None:
    task = build("recall:num_pairs=3", 64)
    assert task.settings["num_queries"] == 3
    assert build("copy", 64).settings == {"num_symbols": 32, "num_letters": 16}
    assert build("listops", 2000).settings["min_len"] == 500


@pytest.mark.parametrize(
    ("arm", "error", "message"),
    [
        (
            "recal",
            ValueError,
            r"task: no task 'recal' \(did you mean 'recall'\?\); there are copy",
        ),
        ("recall:num_pair=3", TypeError, r"num_pair: task recall .* mean 'num_pairs'\?.*min_gap"),
        ("copy:depth=3", TypeError, "depth: task copy has no such option; accepted: num_symbols"),
        ("copy:seq_len=3", TypeError, "seq_len: task copy has no such option"),
    ],
)
def test_unknown_names_are_errors_that_name_the_known(
    arm: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(arm, 64)


def test_a_required_option_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder(Task):
        name, summary, paper = "folder", "a test's", "none"

        def __init__(self, *, seq_len: int, form: Form, path: str) -> None:
            super().__init__(seq_len=seq_len, form=form)

        def batch(self, size: int, **_: Any) -> Batch:
            raise NotImplementedError

    registry.names()
    monkeypatch.setitem(registry._registry, "folder", Folder)
    with pytest.raises(TypeError, match="path: task folder needs path"):
        build("folder", 64)
    row = next(row for row in registry.describe() if row["name"] == "folder")
    assert row["options"]["path"]["required"]


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "seq_len", "message"),
    [
        ("recall:num_pairs=40", 512, "num_pairs: expected at most 31, the keys of vocab_size=64"),
        ("recall:num_pairs=20", 40, "num_pairs: 20 pairs, a gap of 0 and 20 queries take 60 tok"),
        ("recall:min_gap=60", 64, "num_pairs: 4 pairs, a gap of 60 and 4 queries take 72 tokens"),
        ("recall:num_queries=5", 64, "num_queries: expected at most num_pairs=4.*got 5"),
        ("recall:num_pairs=1", 64, "vocab_size: 64 leaves 992 different sequences"),
        ("recall:gaps=log", 64, "gaps: expected one of uniform, power, got 'log'"),
        ("recall:filler=x", 64, "filler: expected one of blank, noise, got 'x'"),
        ("recall:power=0", 64, "power: expected a number finite and above 0"),
        ("recall:num_pairs=0", 64, "num_pairs: expected at least 1, got 0"),
        ("copy:num_symbols=33", 64, "num_symbols: 33 symbols and their answers take 66 tokens"),
        ("copy", 1, "num_symbols: 1 symbols and their answers take 2 tokens.*seq_len=1"),
        ("copy:num_symbols=2", 64, "num_symbols: 2 leaves 256 different sequences"),
        ("copy:num_letters=1", 64, "num_letters: expected at least 2, got 1"),
        ("selective_copy:num_symbols=40", 64, "num_symbols: 40 symbols and their answers take 80"),
        ("induction:num_triggers=17", 64, "num_triggers: 17 triggers.*take 68 tokens.*seq_len=64"),
        ("induction:num_letters=2,num_triggers=1", 5, "num_letters: 2 leaves 12 different"),
        ("needle", 5, "seq_len: expected at least 6, or no haystack is left around 1 needle,.* 5"),
        ("needle:num_needles=3", 13, "seq_len: expected at least 14.*3 needles, got 13"),
        ("needle:num_needles=12", 256, "num_needles: expected at most 11 .*11 depths and 20 keys"),
        ("needle:depth=1.5", 256, "depth: expected one or more fractions from 0 to 1, got 1.5"),
        ("needle:depth=-0.5", 256, "depth: expected a number finite and at least 0, got -0.5"),
        ("needle:depth=0.5+0.501", 256, "depth: expected fractions that differ by a percent"),
        ("needle:depth=0.5+0.52,num_needles=2", 64, "depth: expected depths at least 3 tokens ap"),
        ("needle:vocab_size=4,hay=needles", 6, "seq_len: 6 leaves 2 different sequences"),
        ("needle:vocab_size=4", 9, "vocab_size: expected at least 5, got 4"),
        ("needle:hay=x", 64, "hay: expected one of own, needles, got 'x'"),
        ("listops:min_len=65", 64, "min_len: expected at most max_len=64, got 65"),
        ("listops:max_len=65", 64, "max_len: expected at most seq_len=64, got 65"),
        ("listops", 3, "max_len: expected at least 4, got 3"),
        ("listops:max_depth=2,min_len=13", 64, "min_len: of the expressions with max_depth=2"),
        ("listops:max_depth=4,max_args=3,min_len=44", 64, "min_len: .* have 44 to 64 tokens"),
        ("listops:max_args=1", 64, "max_args: expected at least 2, got 1"),
        ("listops:mask_ratio=1", 64, "mask_ratio: expected a number finite and above 0 and below"),
        ("recall", 0, "seq_len: expected at least 1, got 0"),
    ],
)
def test_impossible_difficulty_is_an_error_that_names_the_argument(
    arm: str, seq_len: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(arm, seq_len)


@pytest.mark.parametrize("arm", ["recall:num_pairs=x", "copy:num_symbols=true", "needle:depth=x"])
def test_an_option_of_the_wrong_type_is_an_error(arm: str) -> None:
    with pytest.raises(TypeError, match=r"(num_pairs|num_symbols|depth): expected a"):
        build(arm, 64)


def test_no_depth_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"depth: expected one or more fractions .*got none"):
        registry.build(Arm("needle", {"depth": []}), form="causal")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "size: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"index": -1}, "index: expected at least 0, got -1"),
        ({"split": "validation"}, "split: expected one of train, test, got 'validation'"),
    ],
)
def test_a_batch_that_cannot_be_is_an_error(given: dict[str, Any], message: str) -> None:
    task = build("recall", 64)
    call: dict[str, Any] = {"size": 2, "seed": 0, "index": 0, "split": "train"} | given
    with pytest.raises(ValueError, match=message):
        task.batch(call.pop("size"), **call)


def test_an_unknown_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="form: expected one of causal, bidirectional, got 'x'"):
        registry.build("recall", form="x")  # type: ignore[arg-type]


def test_random_inputs_have_no_pretraining() -> None:
    with pytest.raises(UnsupportedError, match="recall has no inputs worth it"):
        build("recall", 64).pretraining(2, seed=0, index=0)
