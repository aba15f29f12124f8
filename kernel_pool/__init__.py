"""Warm, sandboxed IPython kernels: pool, provisioners, channels. Knows nothing of gateway or servers."""
