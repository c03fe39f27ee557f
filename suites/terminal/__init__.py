"""The terminal: options, progress, output, shell completion. No torch."""
