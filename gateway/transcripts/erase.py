"""Contents of a record removed for good, its chain kept: lines stay as tombstones, with the hash of what was there.

The last line says which contents were removed, when and why; without it a tombstone is damage. Blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from gateway.transcripts.output_file import folder_of, remove_outputs
from gateway.transcripts.record import Line, Record, erase_line, read_lines
from gateway.transcripts.transcript import Transcript

#: Lines that say what a stranger said, or made.
_ERASED = ("session", "message", "cell", "step")


def erase(transcript: Transcript, reason: str, by: str, which: Callable[[bytes], bool] | None = None) -> int:
    """Remove all contents of a transcript that nobody adds to meanwhile, and the notebook's; how many were removed.

    `which`: says of a line, as it stands in the file, whether its content goes; None: every one's does. The erasure is
    on the record before anything is gone. What was cut off in between is done by the next one.

    Raises:
        RecordDamaged: it is not as it was written; nothing was removed.
        TranscriptError: it cannot be read.
        OSError
    """
    transcript.load()
    record, header = transcript.record, transcript.fold.header
    named = [
        line.seq
        for line in _lines(record)
        if line.kind in _ERASED and not line.erased and (which is None or which(line.encode()))
    ]
    if which is not None and not named:
        return 0
    title = "" if which is None or 1 in named else header.title  # line 1 has it
    about = {"lines": named, "reason": reason, "by": by}
    about |= {"role": header.role, "title": title, "state": header.state, "created": header.created.isoformat()}
    record.append([("erasure", orjson.dumps(about))])
    spooled = _spooled(record, transcript.path, frozenset(named))
    record.rewrite(_without(record, frozenset(named)))
    if which is None:
        remove_outputs(transcript.path)
    for path in spooled:
        path.unlink(missing_ok=True)
    transcript.load()
    transcript.write_now()
    return len(named)


def _spooled(record: Record, notebook: Path, erased: frozenset[int]) -> list[Path]:
    """The files of outputs that these lines name."""
    files = list(folder_of(notebook).glob("*.jsonl"))
    found = [line.encode() for line in _lines(record) if line.seq in erased] if files else []
    return [path for path in files if any(path.name.encode() in raw for raw in found)]


def _lines(record: Record) -> Iterator[Line]:
    return (line for line, _ in record.again().scan())


def _without(record: Record, erased: frozenset[int]) -> Iterator[bytes]:
    raws = (raw for raw, _ in read_lines(record.path))
    for raw, line in zip(raws, _lines(record), strict=True):
        yield erase_line(line).encode() if line.seq in erased else raw
