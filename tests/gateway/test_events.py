"""What waits for a client that does not read its event stream is bounded; what ends the stream is not lost."""

from __future__ import annotations

from gateway.routes.events import Events
from gateway.types import Event


async def test_texts_that_nobody_reads_are_left_out_and_that_is_said() -> None:
    events = Events(most=100)
    for number in range(50):
        await events.send(Event("output", {"text": f"{number:010}"}))
    await events.send(Event("cell", {"status": "ok", "outputs": ["x" * 1000]}))
    events.end()
    got = []
    while (event := await events.next(1)) is not None:
        got.append(event)
    assert [each.data["text"] for each in got[:10]] == [f"{number:010}" for number in range(10)]
    assert [each.kind for each in got[10:]] == ["output", "cell"]
    assert "400 characters were not read in time" in got[10].data["text"]


async def test_a_client_that_reads_gets_all() -> None:
    events = Events(most=100)
    for number in range(50):
        await events.send(Event("output", {"text": f"{number:010}"}))
        event = await events.next(1)
        assert event is not None
        assert event.data["text"] == f"{number:010}"
