"""A sweep over the machines of a Ray cluster: dealt, measured there, written down here."""
