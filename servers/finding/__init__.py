"""Finding the right tool among ten thousand: by words of its name, server, parameters and description."""
