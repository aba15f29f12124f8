"""The agent: a loop between a model and a way to act (cells, or direct tool calls), within limits."""
