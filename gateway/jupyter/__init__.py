"""Jupyter's REST and websocket interface: a kernel that a Jupyter client makes is a session of the platform."""
