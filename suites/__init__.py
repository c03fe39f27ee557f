"""What is measured, and how: the suites that asv discovers, and the driver that runs sweeps."""
