"""What can be wrong with a transcript."""

from __future__ import annotations


class TranscriptError(Exception):
    """A transcript cannot be found or read. The message says which and what to do."""


class RecordDamaged(TranscriptError):
    """A record is not as it was written. The message says where."""
