"""One idea, one file. A new backend is a new file here and touches nothing else."""
