"""The reports: numbers as one small value, and rows as tables for who wants to look closer."""
