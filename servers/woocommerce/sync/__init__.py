"""A copy of the store in Postgres, kept equal: read in windows that overlap, written where it differs."""
