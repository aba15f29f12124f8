"""A cell that runs since before this gateway did: its clients get all of it again, each output once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from gateway.jupyter import answers
from gateway.jupyter.wire import Posted
from gateway.types import CellRun
from kernel_pool.channels import Incoming, decode


class _Begin(msgspec.Struct):
    msg_id: str = ""


class _Status(msgspec.Struct):
    execution_state: str = ""


@dataclass
class Resumed:
    """`stage`: held until the kernel says again all that the cell said, open until the cell's end."""

    msg_id: str
    stage: Literal["held", "open", "over"] = "held"
    #: Of the client's request, as soon as it is known.
    header: bytes = b""

    def look(self, incoming: Incoming) -> None:
        """A message of the gateway's own: the kernel may say that it begins anew."""
        if self.stage == "held" and incoming.msg_type == "resume_begin":
            begin = decode(incoming.content, _Begin)
            if begin is not None and begin.msg_id == self.msg_id:
                self.stage = "open"

    def passes(self, incoming: Incoming) -> tuple[Posted, ...]:
        """What clients are told before a message; the message is not theirs where this raises Again."""
        if incoming.channel != "iopub" or incoming.parent_id != self.msg_id:
            return ()
        if self.stage != "open":
            raise Again
        first, self.header = not self.header, incoming.parts[1]
        if incoming.msg_type == "status":
            status = decode(incoming.content, _Status)
            if status is not None and status.execution_state == "idle":
                self.stage = "over"
        return (answers.made("iopub", "clear_output", {"wait": False}, self.header),) if first else ()

    def reply(self, run: CellRun) -> Posted:
        """The cell's, which the kernel gave to a gateway that is gone."""
        result = run.result
        content = {
            "status": "ok",
            "execution_count": result.execution_count or 0,
            "payload": [],
            "user_expressions": {},
        }
        if result.status != "ok":
            name, text = (result.error.name, result.error.value) if result.error else ("KernelDied", result.reason)
            content |= {"status": "error", **answers.error_content(name, text)}
        header = self.header or msgspec.json.encode({"msg_id": self.msg_id, "msg_type": "execute_request"})
        return answers.made("shell", "execute_reply", content, header)


class Again(Exception):
    """A message that clients have had, or will get."""
