"""TODO attention/context_parallel."""
