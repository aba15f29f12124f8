"""Your own tables in Supabase or Postgres: read, count, write in bulk, search by likeness, call functions."""
