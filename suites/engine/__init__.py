"""The engine: runs launches, keeps the journal, predicts what a case takes. No torch."""
