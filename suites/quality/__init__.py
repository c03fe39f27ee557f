"""Suite quality: what a model with each attention learns of a task."""
