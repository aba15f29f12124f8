"""Search in the shop's catalogue, by meaning and by category."""
