"""Arms: what is called and timed in a case, built from its names and sizes."""
