"""TODO suites/context_parallel."""
