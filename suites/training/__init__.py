"""One small trainer for every task: what a training may spend, the loop, exact resume."""
