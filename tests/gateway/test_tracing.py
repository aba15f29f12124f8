"""Traces reach a collector over a real socket, as OpenTelemetry's own protobuf; spans are below one another."""

from __future__ import annotations

import asyncio
import gzip
import secrets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import counting
import httpx
import pytest
import pytest_asyncio
from gateway_world import own_database, settings_for
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.app import create_app
from gateway.operations.otlp import OtelTracer
from gateway.runtime import Gateway, open_gateway
from gateway.settings import Settings, TracingSettings
from gateway.tracing import NOTHING, headers, span, tracing_by, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "the-shops-own-token-0123456789"


@dataclass
class Collector:
    """What an OTLP collector has been sent."""

    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> Span:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, (name, [span.name for span in self.spans])
        return found[0]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *of: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(of: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in of.attributes}


def traced(folder: Path, url: str, collector: Collector, **more: object) -> Settings:
    tracing = {"endpoint": collector.url, "headers": {"x-key": "collectors-key-0123"}, "pause_s": 0.2}
    pool = {"provisioner": "local", "warm": 1, "maximum": 4, "preload": (), "on_stop": "keep"}
    return settings_for(
        folder / "data",
        url,
        tracing=tracing,
        pool=pool,
        tenants={"shop": {"token": TOKEN}},
        agent={"everyday_tools": ()},
        server={"shutdown_grace_s": 0.2},
        **more,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Settings, Collector]]:
    with own_database(postgres) as url, collecting() as collector:
        yield traced(tmp_path_factory.mktemp("traced"), url, collector), collector


def client(gateway: Gateway) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(gateway), raise_app_exceptions=False)
    auth = {"authorization": f"Bearer {TOKEN}"}
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=auth, timeout=60)


async def test_from_the_request_through_the_cell_to_the_tool_and_over_a_take_over(
    world: tuple[Settings, Collector],
) -> None:
    settings, collector = world
    theirs, above = secrets.token_hex(16), secrets.token_hex(8)
    sent = {"traceparent": f"00-{theirs}-{above}-01"}
    async with open_gateway(settings, registry=counting.registry()) as gateway, client(gateway) as http:
        await gateway.database.execute(counting.UPSTREAM)
        made = (await http.post("/v1/sessions", json={"tenant": "shop"})).json()["id"]
        path = f"/v1/sessions/{made}/cells"
        code = "from servers.counting import add\nadd(name='a')"
        ran = await http.post(f"{path}?token={TOKEN}", json={"code": code, "cell_id": "first"}, headers=sent)
        assert ran.json()["status"] == "ok", ran.text
        # this one goes on under the gateway that comes next
        later = "import time\nfrom servers.counting import look\ntime.sleep(4)\nlook(name='b')\n"
        begun = asyncio.create_task(http.post(path, json={"code": later, "cell_id": "second"}, headers=sent))
        while not gateway.sessions.counts().cells["running"]:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    begun.cancel()
    async with open_gateway(settings, registry=counting.registry()) as gateway, client(gateway) as http:
        while (found := (await http.get(f"{path}/second")).json())["status"] == "running":
            await asyncio.sleep(0.1)
        assert found["status"] == "ok", found
        await gateway.sessions.end(made)

    requests = [span for span in collector.spans if span.name == "POST /v1/sessions/{session}/cells"]
    cells = {attributes(span)["omniops.cell"]: span for span in collector.spans if span.name == "cell"}
    add, look = collector.named("tool counting.add"), collector.named("tool counting.look")
    [first] = [span for span in requests if span.span_id == cells["first"].parent_span_id]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (theirs, above)
    assert {span.trace_id.hex() for span in (*cells.values(), add, look)} == {theirs}
    assert add.parent_span_id == cells["first"].span_id
    assert look.parent_span_id == cells["second"].span_id
    assert cells["second"].parent_span_id in {span.span_id for span in requests}
    assert cells["second"].end_time_unix_nano - cells["second"].start_time_unix_nano > 3.5e9
    assert attributes(first)["http.response.status_code"] == 200
    assert (attributes(add)["omniops.effect"], attributes(add)["omniops.outcome"]) == ("write", "applied")
    assert {header["x-key"] for header in collector.headers} == {"collectors-key-0123"}
    everything = b"".join(request.SerializeToString() for request in collector.requests)
    assert TOKEN.encode() not in everything
    assert b"collectors-key" not in everything


async def test_requests_that_go_out_name_their_trace(world: tuple[Settings, Collector]) -> None:
    tracer = OtelTracer(TracingSettings(endpoint=world[1].url))  # type: ignore[arg-type]
    with tracing_by(tracer), span("above") as above:
        sent = headers()["traceparent"]
        assert sent.split("-")[1] == above.trace
        note = above.note
    with tracing_by(tracer), within(note), span("below") as below:
        assert below.trace == above.trace
        assert below.note.split("-")[2] == note.split("-")[1]
    await tracer.close()


async def test_a_clients_flag_keeps_no_more_than_the_share(world: tuple[Settings, Collector]) -> None:
    tracer = OtelTracer(TracingSettings(endpoint=world[1].url, ratio=0))  # type: ignore[arg-type]
    with tracing_by(tracer), span("x", carrier={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}) as made:
        assert made.note == ""
    for wrong in ("", "00-x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff" * 100):
        with tracing_by(tracer), span("x", carrier={"traceparent": wrong}, note=wrong):
            pass
    await tracer.close()


async def test_it_is_free_where_it_is_off() -> None:
    assert span("anything") is NOTHING
    assert headers() == {}
    loaded = "import sys, gateway.runtime, gateway.app; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
