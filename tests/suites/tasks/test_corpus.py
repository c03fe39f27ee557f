"""The corpus: what is in it, what is held out, and a compressor's figures."""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers_text import made_text

from suites.content_names import corpus_name
from suites.tasks.corpus import from_folder, held_out, load
from suites.tasks.language import Language


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.bin"
    path.write_bytes(made_text(40_000))
    return path


def test_the_standard_library_is_a_corpus() -> None:
    corpus = load("stdlib")
    assert corpus is load("stdlib")
    facts = corpus.facts
    assert facts["bytes"] == len(corpus.train) + len(corpus.test) > 2_000_000
    assert 0.02 < facts["test_bytes"] / facts["bytes"] < 0.1
    assert facts["python"] == sys.version.split()[0].rstrip("+")
    assert 1 < facts["xz"] < facts["zlib"] < 3
    assert b"class JSONDecoder" in corpus.train.tobytes() + corpus.test.tobytes()
    assert "/" not in str(facts)
    task = Language(seq_len=128, form="causal")
    assert (task.objective, task.corpus, task.facts) == ("next", "stdlib", facts)
    window = bytes(task.batch(2, seed=0, index=0, split="train").ids[0].tolist())
    assert window in corpus.train.tobytes()


def test_a_folders_files_go_whole_into_one_split_and_copies_count_once(tmp_path: Path) -> None:
    contents = {f"json/part{i}.py": made_text(300 + i) for i in range(120)}
    contents["abc.py"] = b"# only once\n"
    contents["zipapp.py"] = contents["abc.py"]
    contents["ast.py"] = b""
    others = {
        "foreign.py", "site-packages/json/a.py", "json/tests/b.py", "test/c.py", "encodings/d.py",
        "json/notes.txt", "_sysconfigdata_x.py",
    }  # fmt: skip
    for name, content in {**contents, **dict.fromkeys(others, b"left out")}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    corpus = from_folder(tmp_path, "made")
    test = [name for name in sorted(contents) if held_out(name)]
    assert 0 < len(test) < 20
    train = [n for n in sorted(contents) if n not in test and n != "zipapp.py"]
    assert corpus.train.tobytes() == b"".join(contents[name] for name in train)
    assert corpus.test.tobytes() == b"".join(contents[name] for name in test)
    whole = b"".join(contents[name] for name in sorted(contents) if name != "zipapp.py")
    assert corpus.sha256 == hashlib.sha256(whole).hexdigest()


def test_the_rule_of_the_split_holds_out_a_twentieth() -> None:
    share = np.mean([held_out(f"module{i}/file.py") for i in range(10_000)])
    assert abs(share - 0.05) < 4 * (0.05 * 0.95 / 10_000) ** 0.5
    assert held_out("chunk.py")
    assert not held_out("json/decoder.py")


def test_a_python_without_sources_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sources \(\.py\).*has 0 of them: give a file") as error:
        from_folder(tmp_path / "none", "stdlib")
    assert str(tmp_path) not in str(error.value)


def test_a_files_last_twentieth_is_held_out(text: Path) -> None:
    name = corpus_name(text)
    corpus = load(name, {name: text})
    whole = text.read_bytes()
    assert corpus.train.tobytes() == whole[:38_000]
    assert corpus.test.tobytes() == whole[38_000:]
    digest = hashlib.sha256(whole).hexdigest()
    assert str(text.parent) not in str(corpus.facts)
    assert name == f"sha256-{digest[:12]}"
    deflate = zlib.compressobj(9)
    packed = deflate.compress(whole[38_000:]) + deflate.flush()
    xz = lzma.LZMACompressor(preset=6)
    assert corpus.facts == {
        "corpus": name,
        "sha256": digest,
        "bytes": 40_000,
        "test_bytes": 2_000,
        "zlib": pytest.approx(len(packed) * 8 / 2_000),
        "xz": pytest.approx(len(xz.compress(whole[38_000:]) + xz.flush()) * 8 / 2_000),
    }


def test_loading_a_corpus_loads_no_torch() -> None:
    code = (
        "import sys, suites.content_names, suites.tasks.corpus as c\nc.load('stdlib')\n"
        "print([m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
