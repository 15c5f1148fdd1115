"""What a solver is, what it needs, and the driver that runs it."""
