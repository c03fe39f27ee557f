"""What a model is trained on, to see what an attention can do: one seeded generator a file."""
