"""The gateway: sessions, broker, agent, transcripts, HTTP. Composes kernel_pool and servers."""
