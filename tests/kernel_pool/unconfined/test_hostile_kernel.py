"""A cell that turns on the gateway: whatever it sends, its cell comes to a result and the gateway goes on."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import nbformat
import pytest
from plain_kernels import PlainKernel, PlainTemplate, plain_kernel, text_of

from kernel_pool.types import ExitReason, Limits

#: What the cells below use: `raw` sends frames as they are, `signed` a message with a right signature around any
#: bytes, `reply` such a message on the shell channel, `wire` is the iopub connection below libzmq.
ARMS = r"""
import os, socket, json
k = get_ipython().kernel
D = b"<IDS|MSG>"
mine = json.dumps({"msg_id": k.get_parent("shell")["header"]["msg_id"]}).encode()
def deep(levels): return b"[" * levels + b"]" * levels
def raw(*frames): k.iopub_socket.send_multipart(list(frames))
def frames(type, content, header=None, parent=None, metadata=b"{}", buffers=()):
    header = header or json.dumps({"msg_type": type, "msg_id": "x"}).encode()
    parts = [header, parent or mine, metadata, content]
    return [D, k.session.sign(parts), *parts, *buffers]
def signed(*args, **more): raw(b"topic", *frames(*args, **more))
def reply(*args, **more):
    k.shell_socket.send_multipart([*k._parent_ident["shell"], *frames(*args, **more)])
def wire():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            s = socket.socket(fileno=os.dup(fd))
            if s.getsockname().endswith("/iopub") and s.getpeername() is not None:
                s.setblocking(True)
                return s
        except OSError: pass
"""

NASTY = {
    "no frames to speak of": "raw(b''); raw(b'', b''); raw(D); raw(D, b''); raw(D, D, D, D, D, D)",
    "no signature": "raw(D, b'', b'{}', b'{}', b'{}', b'{}')",
    "wrong signature": 'p = frames(\'stream\', b\'{"name": "stdout", "text": "forged"}\'); p[1] = b\'0\' * 64; raw(*p)',
    "signature that is no text": "p = frames('stream', b'{}'); p[1] = b'\\xff' * 64; raw(*p)",
    "random bytes": "import random; [raw(*(random.randbytes(50) for _ in range(i % 9 + 1))) for i in range(300)]",
    "not JSON": "[signed('stream', c) for c in (b'', b'{', b'\\xff\\xfe', b'nul', b'NaN', b'{\"text\": NaN}')]",
    "JSON of other types": "[signed(t, c) for c in (b'null', b'[]', b'1', b'\"x\"') for t in TYPES]",
    "fields of other types": """for t in TYPES:
    signed(t, b'{"name": 5, "text": null, "data": [], "metadata": 1, "transient": "x", "execution_count": "1"}')
    signed(t, b'{"ename": [], "evalue": {}, "traceback": "x", "wait": "yes", "execution_state": 7}')""",
    "lone surrogates": 'signed(\'stream\', b\'{"name": "stdout", "text": "\\\\ud800"}\')',
    "infinite number": "signed('display_data', b'{\"data\": {\"application/json\": 1e999}}')",
    "endless integer": "signed('display_data', b'{\"data\": {\"application/json\": ' + b'9' * 5000 + b'}}')",
    "deep nesting": "[signed(t, b'[' * 1_000_000) or signed(t, b'{\"data\":' * 200_000) for t in TYPES]",
    "deep JSON output": "signed('display_data', b'{\"data\": {\"application/json\": ' + deep(900) + b'}}')",
    "deep metadata": "signed('display_data', b'{\"data\": {}, \"metadata\": {\"a\": ' + deep(900) + b'}}')",
    "odd mime bundle": 'signed(\'display_data\', b\'{"data": {"text/plain": 5, "text/html": {}, "": ["a"]}}\')',
    "many mime types": "signed('display_data', json.dumps({'data': {str(i): '' for i in range(50_000)}}).encode())",
    "absurd execution count": "signed('execute_result', b'{\"data\": {}, \"execution_count\": -1}')",
    "header of other types": "[signed('', b'{}', header=h) for h in (b'[]', b'{\"msg_type\": 5}', b'[' * 99999)]",
    "parent of other types": "[signed('stream', b'{}', parent=p) for p in (b'null', b'7', b'{\"msg_id\": []}')]",
    "unknown type": "signed('ping' * 10_000, b'{}')",
    "many buffers": "signed('display_data', b'{\"data\": {}}', buffers=[b''] * 5000)",
    "large buffers": "signed('display_data', b'{\"data\": {}}', buffers=[bytes(1_000_000)] * 20)",
    "updates of what is not there": "[signed('update_display_data', b'{\"data\": {}, \"transient\": %s}' % t) for t in"
    " (b'{}', b'{\"display_id\": \"no\"}', b'{\"display_id\": 5}')]",
    "forged welcome": "signed('iopub_welcome', b'{}')",
    "comms that nobody opened": """for i in range(3000):
    signed('comm_open', b'{"comm_id": "%d", "target_name": "x", "data": {}}' % i); signed('comm_msg', b'{}')""",
    "questions that nobody asked for": '[reply(t, b\'{"prompt": "password: ", "password": true}\')'
    " for t in ('input_request', 'shutdown_reply', 'interrupt_reply', 'complete_reply', 'resume_reply')]",
    "the same message again and again": "p = frames('clear_output', b'{}'); [raw(b'topic', *p) for _ in range(2000)]",
    "no signature, as Jupyter allows": 'p = frames(\'stream\', b\'{"name": "stdout", "text": "forged"}\');'
    " p[1] = b''; raw(*p)",
    "another key": 'p = frames(\'stream\', b\'{"name": "stdout", "text": "forged"}\'); p[1] = p[1][::-1]; raw(*p)',
    "delimiters everywhere": "[raw(*[D] * n) for n in range(1, 60)]; raw(D, *frames('stream', b'{}')[1:3], D, D, D)",
    "a date that is none": 'signed(\'stream\', b\'{}\', header=b\'{"msg_type": "stream", "date": "2026-99-99"}\')',
    "names of other things": """for i in ('__proto__', '../../x', '\\0', 'constructor', 'x' * 100_000):
    content = {'data': {'text/plain': 'x'}, 'transient': {'display_id': i}}
    signed('display_data', json.dumps(content).encode())""",
    "escape sequences": "print('\\x1b]0;t\\x07\\x1b]52;c;eA==\\x07\\x1b[2J')",
    "shell messages of other types": "[reply(t, c) for t in ('kernel_info_reply', 'x') for c in (b'[]', b'{', b'{}')]",
}


@pytest.mark.parametrize("attack", NASTY)
async def test_nonsense_is_dropped_and_the_cell_goes_on(kernel: PlainKernel, attack: str) -> None:
    types = (
        "TYPES = ('stream', 'display_data', 'update_display_data', 'execute_result', 'error', 'clear_output', 'status')"
    )
    result = await kernel.run(f"{ARMS}\n{types}\n{NASTY[attack]}\nprint('still here')", deadline_s=60)
    assert result.status == "ok"
    assert "still here" in text_of(result)
    assert "forged" not in text_of(result)
    assert msgspec.json.encode(result.outputs)
    cell = nbformat.v4.new_code_cell("", outputs=[dict(o) for o in result.outputs])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert await kernel.text("1 + 1") == "2"


@pytest.mark.parametrize(
    "content",
    [
        "b'null'",
        "b'{'",
        "b'[' * 1_000_000",
        "b'{\"status\": 5}'",
        'b\'{"status": "ok", "execution_count": "many"}\'',
        'b\'{"status": "ok", "user_expressions": {"a": 5}}\'',
        'b\'{"status": "error", "ename": {}, "traceback": 7}\'',
        'b\'{"status": "ok", "x": "\' + b\'x\' * 10_000_000 + b\'"}\'',
    ],
)
async def test_a_forged_reply_ends_its_own_cell_only(kernel: PlainKernel, content: str) -> None:
    result = await kernel.run(f"{ARMS}\nreply('execute_reply', {content})")
    assert result.status in ("ok", "error")
    assert await kernel.text("1 + 1") == "2"


async def test_a_reply_that_never_comes_is_not_waited_for(kernel: PlainKernel) -> None:
    code = f"{ARMS}\nsigned('status', b'{{\"execution_state\": \"idle\"}}')\nimport time; time.sleep(60)"
    result = await kernel.run(code, deadline_s=60)
    assert (result.status, result.reason) == ("error", "the kernel did not say how the cell ended")


async def test_a_giant_message_is_counted_and_not_kept(kernel: PlainKernel) -> None:
    reset_peak()
    limits = Limits(output_bytes=1_000_000, output_flood_bytes=10**9)
    result = await kernel.run(f"{ARMS}\nraw(D, bytes(400_000_000))\nprint('after')", limits=limits)
    assert text_of(result) == "after\n"
    assert result.dropped_bytes >= 400_000_000
    assert peak_growth_mb() < 100


async def test_a_message_without_end_is_counted_and_not_kept(kernel: PlainKernel) -> None:
    """More frames and more frames, never the last one, written past libzmq."""
    reset_peak()
    code = r"""
import struct, time
time.sleep(0.3)
line = wire()
frame = b"\x03" + struct.pack(">Q", 1_000_000) + bytes(1_000_000)
for _ in range(400): line.sendall(frame)
line.sendall(b"\x00\x01x")
print("after")"""
    result = await kernel.run(ARMS + code, limits=Limits(output_bytes=1_000_000, output_flood_bytes=10**9))
    assert text_of(result) == "after\n"
    assert result.dropped_bytes >= 400_000_000
    assert peak_growth_mb() < 100


async def test_a_reply_to_a_later_cell_is_not_taken_before_that_cell_is_sent(kernel: PlainKernel) -> None:
    """Ids of requests can be guessed: they are counted. What answers a request that was not made yet goes nowhere."""
    forge = r"""
last = k.get_parent("shell")["header"]["msg_id"]
head, number = last.rsplit("_", 1)
for ahead in range(1, 40):
    parent = json.dumps({"msg_id": f"{head}_{int(number) + ahead}"}).encode()
    reply("execute_reply", b'{"status": "ok", "execution_count": 666}', parent=parent)
    signed("stream", b'{"name": "stdout", "text": "forged"}', parent=parent)
    signed("status", b'{"execution_state": "idle"}', parent=parent)
"""
    await kernel.run(ARMS + forge)
    result = await kernel.run("print('true')")
    assert (result.status, text_of(result)) == ("ok", "true\n")
    assert result.execution_count != 666


async def test_messages_that_answer_nobody_are_not_kept(kernel: PlainKernel) -> None:
    reset_peak()
    code = r"""
big = b'{"name": "stdout", "text": "' + b"x" * 1_000_000 + b'"}'
for i in range(300):
    signed("stream", big, parent=b'{"msg_id": "of nobody %d"}' % i)
print("after")"""
    result = await kernel.run(ARMS + code, deadline_s=60)
    assert text_of(result) == "after\n"
    assert peak_growth_mb() < 100


@pytest.mark.parametrize("kind", ["status", "comm_msg", "unknown"])
async def test_a_flood_of_what_is_no_output_ends_at_the_deadline(kernel: PlainKernel, kind: str) -> None:
    code = f"{ARMS}\nwhile True: signed('{kind}', b'{{}}')"
    result = await kernel.run(code, deadline_s=2)
    assert result.status == "interrupted"
    assert await kernel.text("1 + 1") == "2"


async def test_what_is_no_zmtp_costs_the_kernel(kernel: PlainKernel) -> None:
    code = f"{ARMS}\nimport time; time.sleep(0.3); wire().sendall(b'\\xff' * 1000); time.sleep(60)"
    result = await kernel.run(code, deadline_s=60)
    assert result.exit is not None
    assert result.exit.reason is ExitReason.CRASH
    assert "frame flags" in result.reason


async def test_others_are_served_while_one_kernel_floods(kernel: PlainKernel, template: PlainTemplate) -> None:
    limits = Limits(output_bytes=1_000_000, output_flood_bytes=10**12)
    code = f'{ARMS}\nwhile True: signed(\'display_data\', b\'{{"data": {{"text/plain": "x"}}}}\')'
    flood = asyncio.create_task(kernel.run(code, limits=limits, deadline_s=60))
    async with plain_kernel(template) as neighbour:
        for _ in range(20):
            assert await neighbour.text("1 + 1") == "2"
    assert not flood.done()
    await kernel.channels.interrupt()
    assert (await flood).status == "interrupted"


def reset_peak() -> None:
    """Make this process's peak of resident memory what it holds now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    global _before
    _before = peak_mb()


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak_growth_mb() -> float:
    return peak_mb() - _before


_before = 0.0
