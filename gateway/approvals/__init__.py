"""Calls that wait for a person: which ones, how they wait, what the person sees and says, and what follows from it."""
