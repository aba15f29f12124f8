"""Other people's MCP servers as our own: configured by `.mcp.json`, connected when needed, in the catalogue.

What a server says (names, descriptions, results, errors) is untrusted. What it needs (keys, tokens) stays here.
"""
