"""Long work of tools: what runs and ran, how far it is, what it took."""
