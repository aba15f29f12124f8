"""Who calls: API keys, JSON Web Tokens, the configuration's tokens; how much they may ask for; what they did."""
