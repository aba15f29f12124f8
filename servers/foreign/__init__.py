"""Tools of other people's servers: a definition with JSON schemas becomes a `servers.tool.Tool` like our own.

Everything in a definition is untrusted text. It becomes data (shapes, names, cleaned words), and only data is rendered.
"""
