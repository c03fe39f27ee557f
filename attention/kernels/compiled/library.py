"""The compiled kernel: built by the machine's C++ compiler, once, and kept.

The library lies in ``$XDG_CACHE_HOME/attnbench`` (else ``~/.cache/attnbench``), under a name made
of the source, the compiler and the processor: what is there already is not built again, and a home
that machines share holds one of each.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from attention.checks import UnsupportedError

SOURCES = tuple(Path(__file__).with_name(name) for name in ("tiles.cpp", "features.cpp"))
HEADERS = (Path(__file__).with_name("products.h"),)
COMPILERS = ("g++", "clang++")
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp",
    "-shared", "-fPIC",
)  # fmt: skip
TIMEOUT_S = 300.0

Int, Pointer = ctypes.c_int64, ctypes.c_void_p


class Matrix(ctypes.Structure):
    """Where ``[B, heads, rows, dim]`` lies, and how many floats lie from one to the next."""

    _fields_ = (("at", Pointer), ("to_batch", Int), ("to_head", Int), ("to_row", Int))


class Call(ctypes.Structure):
    """What the kernel is asked for: ``struct Call`` of tiles.cpp."""

    _fields_ = (
        *((name, Pointer) for name in ("tiles", "segments", "masks", "parts")),
        *((name, Pointer) for name in ("sink", "log_total")),
        *((name, Int) for name in ("num_tiles", "num_parts", "may_be_empty")),
        *((name, Int) for name in ("heads", "sharing", "queries", "dim", "value_dim")),
        *((name, Int) for name in ("most_rows", "most_columns")),
        *((name, ctypes.c_float) for name in ("scale_of_base_2", "scale")),
        *((name, Matrix) for name in ("q", "k", "v", "extra_k", "extra_v", "out", "grad_out")),
        *((name, Matrix) for name in ("grad_q", "grad_k", "grad_v", "grad_extra_k")),
        ("grad_extra_v", Matrix),
    )


class FeatureCall(ctypes.Structure):
    """What linear attention is asked for: ``struct FeatureCall`` of features.cpp."""

    _fields_ = (
        *((name, Pointer) for name in ("omega", "plain_omega", "hidden", "inverse")),
        *((name, Pointer) for name in ("sums", "tops")),
        *((name, Int) for name in ("groups", "heads", "queries", "keys", "rank", "dim")),
        *((name, Int) for name in ("value_dim", "is_causal", "is_exponential", "keeps")),
        *((name, ctypes.c_float) for name in ("epsilon", "norm", "square_scale", "least_total")),
        *((name, Matrix) for name in ("q", "k", "v", "out", "grad_out")),
        *((name, Matrix) for name in ("grad_q", "grad_k", "grad_v")),
    )


FUNCTIONS = {
    Call: ("size_of_call", ("attend_forward", "attend_backward")),
    FeatureCall: ("size_of_feature_call", ("features_forward", "features_backward")),
}
"""What a call is described by: the function that tells its size, and those that take it."""


def compiler() -> str | None:
    """Return the compiler: ``$CXX``, else the first that is there; ``None`` = there is none."""
    named = os.environ.get("CXX")
    return next((found for name in (named, *COMPILERS) if name and (found := shutil.which(name))),
                None)  # fmt: skip


def reason_against() -> str | None:
    """Say why the kernel cannot be built here; ``None`` = a compiler is there."""
    if compiler() is None:
        return (
            f"kernel: compiled needs a C++ compiler, and none of {', '.join(COMPILERS)} is on the "
            "path; expected one of them, or its path in CXX"
        )
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """Return the kernel, built if it is not there yet.

    Raises:
        UnsupportedError: if there is no compiler, or if it fails: with what it said.
    """
    if reason := reason_against():
        raise UnsupportedError(reason)
    words = [str(compiler()), *FLAGS]
    file = _folder() / f"kernels-{_fingerprint(words)}.so"
    if not file.exists():
        _build(words, file)
    loaded = ctypes.CDLL(str(file))
    for call, (size_of, names) in FUNCTIONS.items():
        size = getattr(loaded, size_of)
        size.restype = Int
        if size() != ctypes.sizeof(call):
            raise RuntimeError(f"{file}: {call.__name__} has {size()} bytes there")
        for name in names:
            function = getattr(loaded, name)
            function.argtypes, function.restype = (ctypes.POINTER(call), ctypes.c_int), None
    return loaded


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "attnbench"


def _fingerprint(words: list[str]) -> str:
    """Name the source, the compiler with its flags, and the processor."""
    version = subprocess.run([words[0], "--version"], capture_output=True, text=True, check=False)
    sources = (file.read_text() for file in (*SOURCES, *HEADERS))
    parts = (*sources, *words, version.stdout, platform.machine(), _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return the lines that tell instruction sets apart; "" where there are none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(x for x in lines if x.startswith(("model name", "flags", "Features")))


def _build(words: list[str], file: Path) -> None:
    """Build beside its place and move it there: another process may do the same."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnsupportedError(
            f"kernel: compiled is kept in {file.parent}, which cannot be made ({error}); expected "
            "a folder for it in XDG_CACHE_HOME"
        ) from error
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        try:
            done = subprocess.run(
                [*words, *map(str, SOURCES), "-o", str(made)],
                capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UnsupportedError(
                f"kernel: compiled was not built by {words[0]} within {TIMEOUT_S:g} s"
            ) from error
        if done.returncode:
            said = (done.stderr.strip() or f"exit code {done.returncode}")[-2000:]
            raise UnsupportedError(f"kernel: compiled could not be built by {words[0]}: {said}")
        made.replace(file)
