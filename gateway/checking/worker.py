"""A process that reads cells for the gateway: `python -m gateway.checking.worker TY MEMORY_MB`.

It has no secret, no network of its own doing and nothing of the session but text; it keeps nothing between two
questions but what makes the next one quick. The gateway bounds its time and ends it when that is over.
"""

from __future__ import annotations

import resource
import sys
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.checking.language_server import LanguageServer, ServerGone
from gateway.checking.messages import LENGTH, Question, Reading, pack
from gateway.checking.reading import Reader

#: Type checkers kept warm, one for each folder of stubs.
_SERVERS = 4
_RECURSION = 3000


def main() -> None:
    program, memory = sys.argv[1], int(sys.argv[2]) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(_RECURSION)
    readers: OrderedDict[str, tuple[LanguageServer, Reader]] = OrderedDict()
    decoder = msgspec.msgpack.Decoder(Question)
    while body := _receive(sys.stdin.buffer):
        sys.stdout.buffer.write(pack(_answer(readers, program, decoder.decode(body))))
        sys.stdout.buffer.flush()


def _answer(readers: OrderedDict[str, tuple[LanguageServer, Reader]], program: str, question: Question) -> Reading:
    try:
        return _reader(readers, program, question.root).read(question)
    except RecursionError:
        return Reading(unchecked="it is nested too deeply")
    except MemoryError:
        return Reading(unchecked="checking it takes too much memory")
    except (ServerGone, OSError) as error:
        if question.root in readers:
            readers.pop(question.root)[0].close()
        return Reading(unchecked=f"the type checker failed ({error})")


def _reader(readers: OrderedDict[str, tuple[LanguageServer, Reader]], program: str, root: str) -> Reader:
    if root not in readers:
        if len(readers) >= _SERVERS:
            readers.popitem(last=False)[1][0].close()
        folder = Path(root)
        stubs = {path.as_uri(): path.read_text().split("\n") for path in (folder / "servers").glob("*.pyi")}
        server = LanguageServer(program, folder)
        readers[root] = server, Reader(server, stubs)
    readers.move_to_end(root)
    return readers[root][1]


def _receive(stream: BinaryIO) -> bytes:
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


if __name__ == "__main__":
    main()
