"""Suite speed: time and memory against length."""
