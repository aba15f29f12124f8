"""Gateways on one database: whose a session is, and how requests that come to another one get there."""
