"""Everything about one person: given out, and erased."""
