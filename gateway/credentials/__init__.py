"""Tenants' credentials: encrypted in the database, opened by the gateway alone."""
