"""Messages that the gateway itself makes, in the name of a kernel that cannot, or is not to, answer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from gateway.jupyter.wire import Posted
from kernel_pool.channels import Channel, Incoming
from kernel_pool.types import Json

_SESSION = uuid.uuid4().hex


def made(channel: Channel, msg_type: str, content: Mapping[str, Json], parent: bytes = b"{}") -> Posted:
    """A message that answers the one whose header is `parent`, or none."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "gateway",
        "session": _SESSION,
        "date": datetime.now(UTC),
        "version": "5.3",
    }
    parts = (msgspec.json.encode(header), parent, b"{}", msgspec.json.encode(content))
    return Posted(Incoming(channel, msg_type, "", parts, ()))


def status(state: str, parent: bytes = b"{}", reason: str = "") -> Posted:
    """`state`: busy, idle, starting, restarting, dead. `reason`: beyond Jupyter's protocol, for those who look."""
    return made("iopub", "status", {"execution_state": state, **({"reason": reason} if reason else {})}, parent)


def notice(text: str, parent: bytes = b"{}") -> Posted:
    """Words for whoever looks at the outputs."""
    return made("iopub", "stream", {"name": "stderr", "text": f"{text}\n"}, parent)


def error_content(name: str, text: str) -> dict[str, Json]:
    """Of a reply, or of an output."""
    return {"ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def aborted(parent: bytes) -> Posted:
    """The reply to an execute_request that does not run, since one before it failed."""
    return made("shell", "execute_reply", {"status": "aborted", "execution_count": 0}, parent)


def failed(name: str, text: str, parent: bytes) -> tuple[Posted, Posted]:
    """The output of, and the reply to, an execute_request that the gateway could not have run to its end."""
    error = error_content(name, text)
    reply = {"status": "error", "execution_count": 0, "user_expressions": {}, "payload": [], **error}
    return made("iopub", "error", error, parent), made("shell", "execute_reply", reply, parent)
