"""Values of strangers made fit for a JSON file: what a kernel, a model or a customer sent may be anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

#: One value of JSON.
Json = Any

_DEPTH = 64
_SAFE_INT = 2**53 - 1
_JSON_MIMES = "application/json"
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_text(text: str) -> str:
    """The text without lone surrogates, which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain(text: str) -> str:
    """Without terminal colours, control characters, and what a progress bar has overwritten."""
    text = _ANSI.sub("", clean_text(text)).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROL.sub("", text)


def clean_json(value: object, redact: Callable[[str], str] = str, depth: int = _DEPTH) -> Json:
    """The value as JSON that every reader takes.

    Not-a-number and infinities become text, so do integers that other languages would round; what is nested deeper
    than `depth` and what is no JSON at all becomes a note of its type.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return redact(clean_text(value))
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INT else _long_int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth <= 0:
        return f"<{type(value).__name__}: nested too deep>"
    if isinstance(value, Mapping):
        return {redact(clean_text(str(key)[:1000])): clean_json(item, redact, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item, redact, depth - 1) for item in value]
    return f"<{type(value).__name__}>"


def clean_output(output: Mapping[str, Json], redact: Callable[[str], str] = str) -> dict[str, Json]:
    """A kernel's output as nbformat 4.5 has it; one that is none becomes a note on stderr."""
    kind = output.get("output_type")
    if kind == "stream":
        return {"output_type": "stream", "name": _stream_name(output), "text": _string(output.get("text"), redact)}
    if kind == "error":
        traceback = output.get("traceback")
        lines = traceback if isinstance(traceback, list | tuple) else ()
        return {
            "output_type": "error",
            "ename": _string(output.get("ename"), redact),
            "evalue": _string(output.get("evalue"), redact),
            "traceback": [_string(line, redact) for line in lines],
        }
    if kind in ("display_data", "execute_result"):
        data, metadata = output.get("data"), output.get("metadata")
        rich: dict[str, Json] = {
            "output_type": kind,
            "data": _mime_bundle(data, redact) if isinstance(data, Mapping) else {},
            "metadata": clean_json(metadata, redact) if isinstance(metadata, Mapping) else {},
        }
        if kind == "execute_result":
            rich["execution_count"] = execution_count(output.get("execution_count"))
        return rich
    return {"output_type": "stream", "name": "stderr", "text": "[an output of an unknown type was left out]\n"}


def execution_count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _SAFE_INT else None


def _mime_bundle(data: Mapping[Any, Any], redact: Callable[[str], str]) -> dict[str, Json]:
    return {
        str(mime)[:200]: clean_json(value, redact) if _is_json(str(mime)) else _string(value, redact)
        for mime, value in data.items()
    }


def _is_json(mime: str) -> bool:
    return mime == _JSON_MIMES or (mime.startswith("application/") and mime.endswith("+json"))


def _string(value: object, redact: Callable[[str], str]) -> str:
    if isinstance(value, list | tuple):
        return "".join(_string(part, redact) for part in value)
    return redact(clean_text(value if isinstance(value, str) else str(clean_json(value))))


def _stream_name(output: Mapping[str, Json]) -> str:
    return "stderr" if output.get("name") == "stderr" else "stdout"


def _long_int(value: int) -> str:
    return str(value) if value.bit_length() < 4000 else f"<integer of {value.bit_length()} bits>"
