"""Suite context: one sequence over several ranks."""
