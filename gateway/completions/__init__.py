"""OpenAI's chat completions over the agent, for chat front ends as they are."""
