"""Tool servers, one folder each, and the registry that reads them. Knows nothing of gateway or kernel_pool."""
