"""Long Range Arena's folders: what is read of them, what is asked, and what is refused."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_tasks import uniform_alone

from suites.content_names import folder_name
from suites.tasks import lra as lra_module
from suites.tasks.base import IGNORED, Batch
from suites.tasks.lra import LongRangeArena
from suites.tasks.tsv import WORDS

LISTOPS = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")
PAIRS = ("new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv", "new_aan_pairs.test.tsv")


def tree(rng: random.Random, depth: int) -> str:
    """Write a random tree as LRA's generator does, with the brackets that show its pairs."""
    if depth == 0:
        return str(rng.randrange(10))
    arguments = [
        tree(rng, depth - 1 if rng.random() < 0.5 else 0) for _ in range(rng.randint(2, 4))
    ]
    text = rng.choice(("[MIN", "[MAX", "[MED", "[SM"))
    for argument in arguments:
        text = f"( {text} {argument} )"
    return f"( {text} ] )"


def value(words: list[str]) -> int:
    """Evaluate the words of an expression on a stack."""
    stack: list[Any] = []
    for word in words:
        if word != "]":
            stack.append(int(word) if word.isdigit() else word)
            continue
        arguments = []
        while not isinstance(stack[-1], str):
            arguments.append(stack.pop())
        ordered, middle = sorted(arguments), len(arguments) // 2
        median = (ordered[middle] + ordered[-1 - middle]) // 2
        operator = stack.pop()
        results = {"[MIN": ordered[0], "[MAX": ordered[-1], "[MED": median,
                   "[SM": sum(arguments) % 10}  # fmt: skip
        stack.append(results[operator])
    (result,) = stack
    return int(result)


def written(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def listops_rows(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        source = tree(rng, 3)
        words = source.replace("(", "").replace(")", "").split()
        rows.append(f"{source}\t{value(words)}\r\n".encode())
    return rows


@pytest.fixture
def listops(tmp_path: Path) -> Path:
    return written(
        tmp_path / "listops",
        {
            name: b"Source\tTarget\r\n" + b"".join(listops_rows(seed, 60))
            for seed, name in enumerate(LISTOPS)
        },
    )


def pair_rows(seed: int, count: int, length: int = 60) -> list[tuple[int, bytes, bytes]]:
    rng = random.Random(seed)
    letters = 'abcdefgh "\u00e9'

    def text() -> bytes:
        return "".join(rng.choices(letters, k=rng.randint(1, length))).encode()

    return [(rng.randrange(2), text(), text()) for _ in range(count)]


def pairs_file(rows: list[tuple[int, bytes, bytes]]) -> bytes:
    return b"".join(b"%d.0\tP1\tP2\t%b\t%b\n" % row for row in rows)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    contents = {name: pairs_file(pair_rows(seed, 50)) for seed, name in enumerate(PAIRS)}
    return written(tmp_path / "aan", contents)


def lra(folder: Path, seq_len: int, form: Any = "causal") -> LongRangeArena:
    name = folder_name(folder)
    return LongRangeArena(seq_len=seq_len, form=form, data=name, files={name: folder})


def examples(task: LongRangeArena, batch: Batch) -> list[tuple[list[int], int]]:
    """Return what is read before the asking token, and the label there."""
    found = []
    for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
        last = ids.index(task.ask)
        assert all(token == task.pad for token in ids[last + 1 :])
        assert [i for i, label in enumerate(labels) if label != IGNORED] == [last]
        found.append((ids[:last], labels[last]))
    return found


# -- ListOps ---------------------------------------------------------------------------------


def test_the_label_of_listops_is_the_value_of_what_is_read(listops: Path) -> None:
    task = lra(listops, 400)
    for split in ("train", "test"):
        batch = task.batch(40, seed=0, index=0, split=split)  # type: ignore[arg-type]
        assert batch.key_padding_mask is not None
        assert torch.equal(batch.key_padding_mask, batch.ids != task.pad)
        for ids, label in examples(task, batch):
            assert value([WORDS[token] for token in ids]) == label
    assert task.vocab_size == 15 + 4
    assert (task.architecture, lra(listops, 400, "bidirectional").architecture) == (
        "decoder", "encoder",
    )  # fmt: skip


def test_the_test_file_is_walked_once_in_its_order(listops: Path) -> None:
    task = lra(listops, 400)
    lines = (listops / "basic_test.tsv").read_text().splitlines()[1:]
    expected = [
        (line.split("\t")[0].replace("(", "").replace(")", "").split(), int(line.split("\t")[1]))
        for line in lines
    ]
    for size, count in ((7, 1_000), (32, 60), (60, 60)):
        batches = list(task.test_batches(size, count, seed=size))
        found = [e for batch in batches for e in examples(task, batch)]
        assert [([WORDS[t] for t in ids], label) for ids, label in found] == expected
    assert [len(b.ids) for b in task.test_batches(4, 10, seed=0)] == [4, 4, 2]


def test_an_expression_is_cut_at_its_end(listops: Path) -> None:
    whole, short = lra(listops, 400), lra(listops, 9)
    long = examples(whole, whole.batch(60, seed=0, index=0, split="test"))
    cut = examples(short, short.batch(60, seed=0, index=0, split="test"))
    for (ids, label), (kept, same) in zip(long, cut, strict=True):
        assert kept == ids[:8]
        assert same == label
    share = sum(len(ids) > 8 for ids, _ in long) / 60
    assert (whole.facts["test_cut"], short.facts["test_cut"]) == (0.0, share)
    assert 0 < share < 1


def test_no_training_example_reads_as_one_of_the_test_split(tmp_path: Path) -> None:
    train, test = listops_rows(0, 50), listops_rows(1, 50)
    header = b"Source\tTarget\r\n"
    contents = {
        "basic_train.tsv": header + b"".join([*train, *test[:10]]),
        "basic_test.tsv": header + b"".join(test),
    }
    task = lra(written(tmp_path / "leak", contents), 400)
    assert task.facts["train_left_out"] >= 10
    assert task.facts["train_examples"] + task.facts["train_left_out"] == 60
    for seq_len in (400, 12):  # cut short, more of them read alike
        task = lra(tmp_path / "leak", seq_len)
        held = {
            tuple(ids) for b in task.test_batches(50, 50, seed=0) for ids, _ in examples(task, b)
        }
        seen = examples(task, task.batch(2_000, seed=0, index=0, split="train"))
        assert not held & {tuple(ids) for ids, _ in seen}
    contents["basic_train.tsv"] = contents["basic_test.tsv"]
    with pytest.raises(ValueError, match=r"every training example of .* is in the test split too"):
        lra(written(tmp_path / "same", contents), 400)


def test_the_chance_is_the_most_frequent_class_of_training(listops: Path) -> None:
    def labels(name: str) -> list[str]:
        return [line.split("\t")[1] for line in (listops / name).read_text().splitlines()[1:]]

    train, test = labels("basic_train.tsv"), labels("basic_test.tsv")
    assert len({train.count(c) for c in "0123456789"}) > 1
    common = max("0123456789", key=train.count)
    assert lra(listops, 400).chance == pytest.approx(test.count(common) / 60)


# -- retrieval -------------------------------------------------------------------------------


def test_two_texts_are_joined_and_cut_to_share_the_room(pairs: Path) -> None:
    rows = pair_rows(2, 50)
    for seq_len in (4, 31, 64, 65, 300):
        task = lra(pairs, seq_len)
        found = examples(task, task.batch(50, seed=0, index=0, split="test"))
        room = seq_len - 2
        for (label, first, second), (ids, asked) in zip(rows, found, strict=True):
            middle = ids.index(task.separator)
            left, right = bytes(ids[:middle]), bytes(ids[middle + 1 :])
            assert first.startswith(left)
            assert second.startswith(right)
            assert asked == ord(str(label))
            assert len(left) + len(right) == min(room, len(first) + len(second))
            assert len(left) >= min(len(first), room // 2)
            assert len(right) >= min(len(second), room // 2)
    assert lra(pairs, 300).facts["test_cut"] == 0.0
    assert lra(pairs, 4).vocab_size == 256 + 4


def test_without_padding_there_is_no_mask(tmp_path: Path) -> None:
    long = [(seed % 2, b"a" * 40, b"b%d" % seed * 20) for seed in range(20)]
    contents = {PAIRS[0]: pairs_file(long[:10]), PAIRS[2]: pairs_file(long[10:])}
    folder = written(tmp_path / "long", contents)
    for seq_len, padded in ((40, False), (200, True)):
        batch = lra(folder, seq_len).batch(4, seed=0, index=0, split="test")
        assert (batch.key_padding_mask is not None) == padded


# -- both ------------------------------------------------------------------------------------


def test_pretraining_asks_the_examples_own_tokens(pairs: Path, listops: Path) -> None:
    for folder in (pairs, listops):
        task = lra(folder, 100)
        rows = {tuple(ids) for ids in task.batch(500, seed=0, index=0, split="train").ids.tolist()}
        causal = task.pretraining(30, seed=1, index=2)
        for ids, labels in zip(causal.ids.tolist(), causal.labels.tolist(), strict=True):
            assert tuple(ids) in rows
            last = ids.index(task.ask)
            assert labels[:last] == ids[1 : last + 1]
            assert set(labels[last:]) == {IGNORED}
        task = lra(folder, 100, "bidirectional")
        masked = task.pretraining(30, seed=1, index=2)
        assert masked.key_padding_mask is not None
        for ids, labels in zip(masked.ids.tolist(), masked.labels.tolist(), strict=True):
            pairs_ = zip(ids, labels, strict=True)
            own = [i if label == IGNORED else label for i, label in pairs_]
            assert tuple(own) in rows
            symbols = sum(token < task.symbols for token in own)
            asked = [label for label in labels if label != IGNORED]
            assert len(asked) == max(round(0.15 * symbols), 1)
            assert max(asked) < task.symbols
        assert (masked.ids == task.mask).any()


@pytest.mark.parametrize(
    ("kind", "digest"), [("listops", "f2c2c2dec791a939"), ("pairs", "301692a0e702f34f")]
)
def test_a_seed_gives_one_batch_on_every_machine(
    kind: str, digest: str, request: pytest.FixtureRequest
) -> None:
    task = lra(request.getfixturevalue(kind), 64, "bidirectional")
    whole = hashlib.sha256()
    batches = [task.batch(8, seed=1, index=2, split="train"), task.pretraining(8, seed=1, index=2)]
    for batch in batches:
        whole.update(batch.ids.numpy().astype("<i8").tobytes())
        whole.update(batch.labels.numpy().astype("<i8").tobytes())
    assert whole.hexdigest()[:16] == digest
    other = task.batch(8, seed=1, index=3, split="train")
    assert not torch.equal(other.ids, batches[0].ids)


def test_all_is_made_of_uniform_numbers(listops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = lra(listops, 64, "bidirectional")
    whole = task.pretraining(8, seed=1, index=0)
    monkeypatch.setattr(lra_module, "generator", uniform_alone)
    assert torch.equal(task.pretraining(8, seed=1, index=0).ids, whole.ids)


# -- broken files ----------------------------------------------------------------------------

GOOD = b"Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n"
PAIR = b"1.0\tP1\tP2\tone\ttwo\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1: expected the header Source<tab>Target, got ''"),
        (GOOD[14:], r"line 1: expected the header .*, got '\( \( \( \[MAX 2"),
        (b"Source,Target\n", r"line 1: expected the header .*, got 'Source,Target'"),
        (b"\x1f\x8b\x08\x00\xff", r"line 1: expected the header .*, got '.*\\xff'"),
        (GOOD[:14], r"expected at least one example, got none"),
        (GOOD + b"( [MIN 1 ] )\n", r"line 3: expected 2 columns, Source and Target, got 1: '\( "),
        (GOOD + b"\n", r"line 3: expected 2 columns, Source and Target, got 1: ''"),
        (GOOD + b"[MIN 1 ]\t1\t2\n", r"line 3: expected 2 columns, .*, got 3"),
        (GOOD + b"[MIN 1 ]\tnine\n", r"line 3: expected a label, .* 0 to 9, got 'nine'"),
        (GOOD + b"[MIN 1 ]\t10\n", r"line 3: expected a label, .* 0 to 9, got '10'"),
        (GOOD + b"[MIN 1 ]\t1.5\n", r"line 3: expected a label, .* 0 to 9, got '1.5'"),
        (GOOD + b"[MIN 1 ]\t\n", r"line 3: expected a label, .* 0 to 9, got ''"),
        (GOOD + b"[FIRST 1 ]\t1\n", r"line 3: expected words of 0 1 .* apart .*, got '\[FIRST'"),
        (GOOD + b"[MIN 12 ]\t1\n", r"line 3: expected words .*, got '12'"),
        (GOOD + b"[MIN1 ]\t1\n", r"line 3: expected words .*, got '\[MIN1'"),
        (GOOD + b"[MIN\x01 1 ]\t1\n", r"line 3: expected words .*, got '\[MIN\\x01'"),
        (GOOD + b"[MIN \x02 1 ]\t1\n", r"line 3: expected words .*, got '\\x02'"),
        (GOOD + b"( )\t1\n", r"line 3: expected words .*, got '\( \)'"),
    ],
)
def test_a_broken_listops_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = written(tmp_path / "x", {"basic_train.tsv": content, "basic_test.tsv": GOOD})
    with pytest.raises(ValueError, match=rf"^basic_train.tsv(, |: ){message}") as error:
        lra(folder, 64)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r": expected at least one example, got an empty file"),
        (PAIR + b"1.0\tP1\tP2\tone\n", r", line 2: expected 5 columns, label, .*, got 4: '1.0"),
        (PAIR[:-1] + b"\tx\n", r", line 1: expected 5 columns, .*, got 6"),
        (PAIR + b"yes\tP1\tP2\tone\ttwo\n", r", line 2: expected a label, .* 0 to 1, got 'yes'"),
        (PAIR + b"2.0\tP1\tP2\tone\ttwo\n", r", line 2: expected a label, .* 0 to 1, got '2.0'"),
        (PAIR + b"nan\tP1\tP2\tone\ttwo\n", r", line 2: expected a label, .* 0 to 1, got 'nan'"),
        (PAIR + b"1.0\tP1\tP2\t\ttwo\n", r", line 2: expected a text as text1, got ''"),
        (PAIR + b"1.0\tP1\tP2\tone\t\xff\xfe\n", r", line 2: expected UTF-8 as text2, got '\\xff"),
        (b"\x00\xff" * 99, r", line 1: expected 5 columns, .*, got 1: '.*…"),
    ],
)
def test_a_broken_file_of_pairs_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = written(tmp_path / "x", {PAIRS[0]: PAIR, PAIRS[2]: content})
    with pytest.raises(ValueError, match=rf"^new_aan_pairs.test.tsv{message}") as error:
        lra(folder, 64)
    assert str(tmp_path) not in str(error.value)


def test_a_folder_must_have_one_format_and_both_splits(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"new_aan_pairs.train.tsv is there, .*test.tsv is missing"
    ):
        lra(written(tmp_path / "half", {PAIRS[0]: PAIR}), 64)
    both = {PAIRS[0]: PAIR, "basic_train.tsv": GOOD}
    with pytest.raises(ValueError, match=r"expected either basic_train.tsv and .*, got both"):
        lra(written(tmp_path / "both", both), 64)
    with pytest.raises(ValueError, match=r"expected either basic_train.tsv .*, got none of them"):
        lra(written(tmp_path / "none", {"other.tsv": GOOD}), 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_len": 3}, "seq_len: expected at least 4, got 3"),
        ({"form": "both"}, "form: expected one of causal, bidirectional, got 'both'"),
        ({"data": "folder"}, "data: expected sha256- and 12 hex digits, got 'folder'"),
        ({"data": "sha256-0123456789ab"}, "data: the content of .* was not given .*; given: sha"),
    ],
)
def test_impossible_options_are_refused(
    listops: Path, options: dict[str, Any], message: str
) -> None:
    name = folder_name(listops)
    given = {"seq_len": 64, "form": "causal", "data": name, **options}
    with pytest.raises(ValueError, match=message):
        LongRangeArena(files={name: listops}, **given)


def test_a_folder_that_has_changed_is_refused(listops: Path) -> None:
    name = folder_name(listops)
    (listops / "basic_test.tsv").write_bytes(GOOD)
    with pytest.raises(ValueError, match=rf"data: listops has changed: .* of {name}, got sha256-"):
        LongRangeArena(seq_len=64, form="causal", data=name, files={name: listops})
