"""The gateway as an MCP server: cells, tools and transcripts for other people's agents."""
