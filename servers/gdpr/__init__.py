"""One person's data: everything about them given out as a file, or erased."""
