"""Byte-level language models: what each objective asks, of which text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_tasks import uniform_alone
from helpers_text import made_text

from attention.base import UnsupportedError
from models.config import ModelConfig
from models.transformer import TransformerModel
from suites.content_names import corpus_name
from suites.tasks import language as language_module
from suites.tasks.base import IGNORED, Batch, Split
from suites.tasks.corpus import load
from suites.tasks.hiding import corrupt, fit
from suites.tasks.language import END, MASK, SENTINEL, START, Language

OBJECTIVES = {"next": "causal", "masked": "bidirectional", "denoise": "bidirectional"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.bin"
    path.write_bytes(made_text(40_000))
    return path


def language(path: Path, objective: str, seq_len: int = 64, **options: Any) -> Language:
    name = corpus_name(path)
    form: Any = OBJECTIVES[objective]
    choice: Any = objective
    return Language(
        seq_len=seq_len, form=form, objective=choice, corpus=name, files={name: path}, **options
    )


def restored(task: Language, batch: Batch) -> list[bytes]:
    """Return the text of each sequence from what is read and what is asked, byte by byte."""
    texts = []
    for row, (ids, labels) in enumerate(
        zip(batch.ids.tolist(), batch.labels.tolist(), strict=True)
    ):
        if task.objective == "next":
            assert ids[1:] == labels[:-1]
            texts.append(bytes([*ids, labels[-1]]))
        elif task.objective == "masked":
            pairs = zip(ids, labels, strict=True)
            texts.append(bytes(i if label == IGNORED else label for i, label in pairs))
        else:
            assert batch.decoder_ids is not None
            target = batch.decoder_ids[row].tolist()
            assert target[0] == START
            spans: dict[int, list[int]] = {}
            for token in target[1:]:
                if token >= SENTINEL:
                    spans[token] = []
                else:
                    spans[max(spans)].append(token)
            read = ([i] if i < 256 else spans.pop(i) for i in ids)
            texts.append(bytes(byte for part in read for byte in part))
            assert not spans
    return texts


# -- what is asked ---------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_read_and_what_is_asked_make_up_the_text(text: Path, objective: str) -> None:
    task = language(text, objective)
    whole = text.read_bytes()
    for split, part in (("train", whole[:38_000]), ("test", whole[38_000:])):
        other = whole.replace(part, b"")
        batch = task.batch(16, seed=3, index=1, split=split)  # type: ignore[arg-type]
        for window in restored(task, batch):
            assert part.count(window) == 1
            assert window not in other
        assert batch.ids.shape == (16, 64)
        assert batch.ids.dtype == batch.labels.dtype == torch.int64
        assert int(batch.ids.max()) < task.vocab_size > int(batch.labels.max())
        assert batch.groups is None is batch.key_padding_mask


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_test_split_is_walked_once_and_the_same_for_every_seed(
    text: Path, objective: str
) -> None:
    task = language(text, objective)
    whole = [w for b in task.test_batches(7, 10_000, seed=0) for w in restored(task, b)]
    step = len(whole[0]) - (objective == "next")
    assert len(whole) == len(set(whole)) == (2_000 - (objective == "next")) // step
    held = text.read_bytes()[38_000:]
    assert sorted(held.find(w) for w in whole) == list(range(0, len(whole) * step, step))
    some = list(task.test_batches(4, 10, seed=5))
    assert [len(b.ids) for b in some] == [4, 4, 2]
    assert [w for b in some for w in restored(task, b)] == whole[:10]
    single = list(task.test_batches(1, 10, seed=1))
    assert torch.equal(torch.cat([b.ids for b in single]), torch.cat([b.ids for b in some]))
    assert torch.equal(task.batch(4, seed=9, index=1, split="test").labels, some[1].labels)


@pytest.mark.parametrize(
    ("objective", "digest"),
    [
        ("next", "f251a61756c51b32"),
        ("masked", "4273ef4ff3a48661"),
        ("denoise", "c8c246f47735a9b5"),
    ],
)
def test_a_seed_gives_one_batch_on_every_machine(text: Path, objective: str, digest: str) -> None:
    task = language(text, objective)
    whole = hashlib.sha256()
    for split in ("train", "test"):
        for tensor in task.batch(8, seed=1, index=2, split=split):  # type: ignore[arg-type]
            if tensor is not None:
                whole.update(tensor.numpy().astype("<i8").tobytes())
    assert whole.hexdigest()[:16] == digest
    again = language(text, objective).batch(8, seed=1, index=2, split="train").ids
    for seed, index in ((1, 3), (2, 2)):
        assert not torch.equal(task.batch(8, seed=seed, index=index, split="train").ids, again)


@pytest.mark.parametrize("objective", ["next", "masked", "denoise"])
def test_all_is_made_of_uniform_numbers(
    text: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: tuple[Split, ...] = ("train", "test")
    whole = [language(text, objective).batch(8, seed=1, index=0, split=s) for s in splits]
    monkeypatch.setattr(language_module, "generator", uniform_alone)
    again = [language(text, objective).batch(8, seed=1, index=0, split=s) for s in splits]
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(one.ids, other.ids)


def test_training_windows_begin_everywhere_in_the_train_split_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(made_text(200))
    task = language(path, "next", seq_len=8)
    train = path.read_bytes()[:190]
    ids = task.batch(5_000, seed=0, index=0, split="train").ids
    assert {train.find(bytes(row)) for row in ids.tolist()} == set(range(190 - 8))


def test_masked_hides_a_fixed_share_four_fifths_of_it_masked(text: Path) -> None:
    task = language(text, "masked", seq_len=400)
    batches = [task.batch(32, seed=0, index=i, split="train") for i in range(20)]
    ids = torch.cat([b.ids for b in batches])
    labels = torch.cat([b.labels for b in batches])
    asked = labels != IGNORED
    assert (asked.sum(dim=1) == 60).all()
    assert ids[~asked].max() < 256
    number = int(asked.sum())
    masked = int((ids[asked] == MASK).sum()) / number
    kept = int((ids[asked] == labels[asked]).sum()) / number
    assert abs(masked - 0.8) < 4 * (0.8 * 0.2 / number) ** 0.5
    # A replacement is the byte itself once in 256 times.
    assert abs(kept - (0.1 + 0.1 / 256)) < 4 * (0.1 * 0.9 / number) ** 0.5
    places = asked.float().mean(dim=0)
    assert (places - 0.15).abs().max() < 5 * (0.15 * 0.85 / len(ids)) ** 0.5
    assert (
        language(text, "masked", density=0.5).batch(4, seed=0, index=0, split="test").labels
        != IGNORED
    ).sum(dim=1).tolist() == [32] * 4


def test_denoise_trains_sentinels_and_the_end_and_tests_bytes_alone(text: Path) -> None:
    task = language(text, "denoise", seq_len=256)
    assert task.architecture == "encoder_decoder"
    spans = fit(256, density=0.15, mean=3.0)
    assert task.vocab_size == SENTINEL + spans.count
    marks = list(range(SENTINEL, SENTINEL + spans.count))
    train = task.batch(4, seed=0, index=0, split="train")
    test = task.batch(4, seed=0, index=0, split="test")
    for row in range(4):
        labels = train.labels[row].tolist()
        assert [t for t in labels if t >= SENTINEL] == marks
        assert [t for t in train.ids[row].tolist() if t >= 256] == marks
        assert labels[-1] == END
        assert train.decoder_ids is not None
        assert train.decoder_ids[row].tolist() == [START, *labels[:-1]]
        asked = [t for t in test.labels[row].tolist() if t != IGNORED]
        assert len(asked) == spans.hidden == int(0.15 * spans.text)
        assert max(asked) < 256


@pytest.mark.parametrize("density", [0.01, 0.15, 0.5])
@pytest.mark.parametrize("mean", [1.0, 3.0, 20.0])
def test_spans_fill_an_input_exactly_at_every_length(density: float, mean: float) -> None:
    for inputs in range(8, 400):
        spans = fit(inputs, density=density, mean=mean)
        assert spans.inputs == inputs
        assert 1 <= spans.count <= spans.hidden <= spans.text - spans.hidden
        assert abs(spans.hidden - density * spans.text) <= 1


def test_every_way_to_hide_spans_is_as_likely() -> None:
    spans = fit(5, density=0.45, mean=1.5)
    assert (spans.text, spans.hidden, spans.count) == (6, 2, 1)
    draws = np.random.default_rng(0).random((6_000, spans.draws))
    text = np.tile(np.arange(6), (6_000, 1))
    inputs, targets = corrupt(text, draws, spans, sentinel=8, end=7)
    assert {tuple(row) for row in inputs.tolist()} == {(0, 1, 2, 3, 8)}  # one span ends the text
    assert {tuple(row) for row in targets.tolist()} == {(8, 4, 5, 7)}
    spans = fit(8, density=0.5, mean=2.0)
    assert (spans.text, spans.hidden, spans.count) == (11, 5, 2)
    draws = np.random.default_rng(0).random((20_000, spans.draws))
    inputs, _ = corrupt(np.tile(np.arange(11), (20_000, 1)), draws, spans, sentinel=20, end=30)
    ways, counts = np.unique(inputs, axis=0, return_counts=True)
    assert len(ways) == 5 * 4  # kept 6 = a + b five ways, hidden 5 = c + d four ways
    assert np.abs(counts - 1_000).max() < 5 * 1_000**0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_model_takes_the_batches(text: Path, objective: str) -> None:
    task = language(text, objective, seq_len=32)
    config = ModelConfig(
        architecture=task.architecture, vocab_size=task.vocab_size, d_model=16, num_layers=1,
        num_heads=2, d_ff=16, max_len=64,
    )  # fmt: skip
    batch = task.batch(3, seed=0, index=0, split="train")
    read = [batch.ids] if batch.decoder_ids is None else [batch.ids, batch.decoder_ids]
    logits = TransformerModel(config)(*read)
    assert logits.shape == (*batch.labels.shape, task.vocab_size)


def test_the_chance_is_the_most_frequent_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aab" * 5_000 + b"bbab" * 250)
    task = language(path, "next")
    test = path.read_bytes()[-800:]
    assert task.chance == pytest.approx(test.count(b"a") / 800) == 0.25


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_len": 7}, "seq_len: expected at least 8, got 7"),
        ({"form": "both"}, "form: expected one of causal, bidirectional, got 'both'"),
        ({"objective": "last"}, "objective: expected one of next, masked, denoise, got 'last'"),
        ({"density": 0.1}, "density: next hides no such thing; got 0.1"),
        ({"form": "bidirectional", "span": 3.0}, "span: masked hides no such thing; got 3.0"),
        ({"form": "bidirectional", "density": 0.0}, "density: expected a number .*above 0"),
        ({"form": "bidirectional", "density": 0.6}, "density: expected at most 0.5, got 0.6"),
        ({"form": "bidirectional", "objective": "denoise", "span": 0.5}, "span: .*at least 1"),
        ({"corpus": "enwik8"}, "corpus: expected stdlib or the hash name of a file, got 'enwik8'"),
        ({"corpus": "sha256-12"}, "corpus: expected sha256- and 12 hex digits, got 'sha256-12'"),
        ({"corpus": f"sha256-{'0' * 12}"}, "of sha256-0+ was not given with this command; given"),
        ({"seq_len": 2_000}, "test split of .* has 2000 bytes, and a window takes 2001"),
    ],
)
def test_impossible_options_are_refused(text: Path, options: dict[str, Any], message: str) -> None:
    name = corpus_name(text)
    given = {"seq_len": 64, "form": "causal", "corpus": name, **options}
    with pytest.raises(ValueError, match=message):
        Language(files={name: text}, **given)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_has_one_form(text: Path, objective: Any) -> None:
    form: Any = "bidirectional" if OBJECTIVES[objective] == "causal" else "causal"
    with pytest.raises(UnsupportedError, match=f"{objective} has the .* form alone, got {form}"):
        Language(seq_len=64, form=form, objective=objective)


def test_a_corpus_that_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^short.txt: expected text to learn, got an empty file"):
        corpus_name(path)
    empty = f"sha256-{hashlib.sha256(b'').hexdigest()[:12]}"
    with pytest.raises(ValueError, match=r"corpus: short.txt is empty"):
        load(empty, {empty: path})
    path.write_bytes(made_text(100))
    with pytest.raises(ValueError, match=r"the test split of .* has 5 bytes"):
        language(path, "next")
    name = corpus_name(path)
    path = tmp_path / "other.txt"
    path.write_bytes(made_text(101))
    with pytest.raises(ValueError, match=r"corpus: other.txt has changed: .*stay as it was"):
        load(name, {name: path})
    path.unlink()
    with pytest.raises(ValueError, match=r"other.txt cannot be read: No such file") as error:
        load(name, {name: path})
    assert str(tmp_path) not in str(error.value)


def test_language_has_no_pretraining(text: Path) -> None:
    with pytest.raises(UnsupportedError, match="pretrain: language"):
        language(text, "next").pretraining(4, seed=0, index=0)
