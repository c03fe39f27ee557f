"""Tiles of softmax attention by a compiled kernel: C++, built where a compiler is, on demand."""
