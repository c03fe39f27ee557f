"""Packed sequences: documents one behind another in one row, each attended to by itself.

The rows of a batch have one length; documents do not. Instead of padding them, put them one behind
another and say how long each is:

    >>> packed = attention.Packed([512, 300, 212])
    >>> out = attend(q, k, v, is_causal=True, packed=packed)  # q [1, H, 1024, D]

The output and the gradients are those of a call for each document alone. How it is computed:
documents of one length are the rows of a batch, and short ones of nearly one length too, padded;
the others get a call each.
"""

from attention.packed.batches import attend_packed as attend_packed
from attention.packed.batches import packed_cost as packed_cost
from attention.packed.documents import Packed as Packed
