"""TODO attention/decoding."""
