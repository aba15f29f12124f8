"""The one place where transcripts are redacted.

Secrets never reach the record: `secret` is applied to every text before it is written. Personal data stays in the
record, for its tenant's own sessions go on from there; `personal` is applied to every text of a view: the notebook on
disk, what HTTP gives out, exports.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from gateway.transcripts.clean import clean_json, clean_text
from gateway.transcripts.notebook import quoted, unquoted

PersonalKind = Literal["email", "phone", "card", "iban"]

_EMAIL = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}|\(\d{3}\) ?\d{3}-\d{4})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.+-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w.-]?\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
#: In a line longer than this personal data may be cut in two only where it is longer than the second, characters.
_LONG_LINE, _LONGEST = 64 * 1024, 1100
#: What none of the patterns above has in it.
_BETWEEN = re.compile(r"[^\w@.%+() -]")
#: Outputs of other types are no text: masking would break an image.
_TEXT = ("text/", "image/svg+xml")


class Redaction:
    """Both kinds; `kinds` of personal data are masked."""

    def __init__(
        self,
        secret: Callable[[str], str] = str,
        kinds: tuple[PersonalKind, ...] = (),
        forms: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`forms`: what `secret` takes out, for text that comes in pieces."""
        self.secret = secret
        self.forms = forms
        self.kinds: tuple[PersonalKind, ...] = tuple(sorted(set(kinds)))

    def personal(self, text: str) -> str:
        """`text` with what looks like personal data named instead: `[email]`, `[phone]`, `[card]`, `[iban]`."""
        if "email" in self.kinds and "@" in text:
            text = _EMAIL.sub("[email]", text)
        if "iban" in self.kinds:
            text = _IBAN.sub(lambda found: "[iban]" if _is_iban(found[0]) else found[0], text)
        if "card" in self.kinds:
            text = _CARD.sub(lambda found: "[card]" if _is_card(found[0]) else found[0], text)
        if "phone" in self.kinds and ("+" in text or "(" in text):
            text = _PHONE.sub("[phone]", text)
        return text

    def cell(self, node: dict[str, Any]) -> dict[str, Any]:
        """A notebook's cell, masked. Its id, its times and its pictures stay as they are."""
        if not self.kinds:
            return node
        masked = node | {"source": self._source(node), "metadata": clean_json(node["metadata"], self.personal)}
        if "outputs" in node:
            masked["outputs"] = [self.output(output) for output in node["outputs"]]
        return masked

    def _source(self, node: dict[str, Any]) -> str:
        source: str = node["source"]
        if node["cell_type"] != "markdown":
            return self.personal(source)
        heading, between, _ = source.partition("\n\n")
        return f"{heading}{between}{quoted(self.personal(unquoted(source)))}" if between else source

    def held(self, text: str) -> int:
        """How many of the last characters may be the beginning of a secret that goes on."""
        longest = 0
        for form in self.forms():
            for size in range(min(len(form) - 1, len(text)), longest, -1):
                if text.endswith(form[:size]):
                    longest = size
                    break
        return longest

    def output(self, output: dict[str, Any]) -> dict[str, Any]:
        """A notebook's output, masked."""
        if "data" not in output:
            return clean_json(output, self.personal)  # type: ignore[no-any-return]
        data = {
            mime: clean_json(value, self.personal) if mime.startswith(_TEXT) or not isinstance(value, str) else value
            for mime, value in output["data"].items()
        }
        return output | {"data": data, "metadata": clean_json(output["metadata"], self.personal)}


class Flow:
    """A text that comes in pieces, redacted as it would be whole: secrets and personal data."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._raw = ""
        self._line = ""

    @property
    def suspect(self) -> str:
        """The end of what came, which may be the beginning of a secret."""
        return self._raw

    @property
    def line(self) -> str:
        """What waits beside that: no secret is in it, personal data may be."""
        return self._line

    def take_over(self, line: str) -> None:
        """Go on with what waited in another one."""
        self._line = line

    def push(self, text: str) -> str:
        """One piece more; what can be told by now."""
        self._raw += clean_text(text)
        cut = self._between_secrets()
        self._line += self._redaction.secret(self._raw[:cut])
        self._raw = self._raw[cut:]
        if not self._redaction.kinds:
            told, self._line = self._line, ""
            return told
        cut = self._line.rfind("\n") + 1
        if len(self._line) - cut > _LONG_LINE:
            cut = self._between_data()
        told, self._line = self._line[:cut], self._line[cut:]
        return self._redaction.personal(told)

    def end(self) -> str:
        """The rest."""
        rest = self._redaction.personal(self._line + self._redaction.secret(self._raw))
        self._raw = self._line = ""
        return rest

    @property
    def pending(self) -> int:
        """Characters that were not told yet."""
        return len(self._raw) + len(self._line)

    def _between_secrets(self) -> int:
        cut = len(self._raw) - self._redaction.held(self._raw)
        forms, moved = self._redaction.forms(), cut < len(self._raw)
        while moved:
            moved = False
            for form in forms:
                at = self._raw.find(form, max(0, cut - len(form) + 1), cut + len(form) - 1)
                if -1 < at < cut:
                    cut, moved = at, True
        return cut

    def _between_data(self) -> int:
        line = self._line
        cut = len(line) - _LONGEST
        for found in _BETWEEN.finditer(line, cut):
            cut = found.end()
        for pattern in (_EMAIL, _PHONE, _CARD, _IBAN):
            for match in pattern.finditer(line, max(0, cut - _LONGEST)):
                if match.start() < cut < match.end():
                    cut = match.start()
        return cut


def _is_card(text: str) -> bool:
    """By Luhn's sum."""
    digits = [int(each) for each in text if each.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [each if place % 2 == 0 else each * 2 - 9 * (each > 4) for place, each in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """By its check digits."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1
