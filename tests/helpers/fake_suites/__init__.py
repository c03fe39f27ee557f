"""A stand-in for the suites, without torch: its backends misbehave on request."""
