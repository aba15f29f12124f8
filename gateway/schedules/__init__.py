"""Work that begins by itself: a tool's call or a notebook, at the times that a tenant's settings name."""
