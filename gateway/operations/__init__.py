"""What those who run a gateway see of it, and what keeps it on its feet: metrics, ids, limits, an orderly end."""
