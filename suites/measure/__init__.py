"""How a case is measured: its process, the clock, memory, the machine's peaks, the gate."""
