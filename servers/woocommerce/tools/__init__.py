"""The tools of this server, one resource a module; `service` has those for a conversation with a customer."""
