"""The worker process: takes one request, runs the kind that it names, answers."""
