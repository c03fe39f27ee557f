"""The gated delta rule: a decaying state, in which a value replaces what its key held."""

from attention.backends.gated_delta.attention import GatedDeltaAttention as GatedDeltaAttention
