"""The gateway put together: settings, database, tools, broker, pool, sessions, agent; started in order, stopped in
reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpx
import msgspec

from gateway.approvals.desk import Desk
from gateway.approvals.due_rows import DueRows
from gateway.approvals.gate import Clock, Gate, wall_clock
from gateway.approvals.notices import Notices
from gateway.approvals.resume import Resumer
from gateway.approvals.reverts import Reverts
from gateway.approvals.rows import ApprovalRows
from gateway.broker import Broker, Contexts, Journal
from gateway.broker.from_journal import FromJournal
from gateway.broker.scrub import Scrubber
from gateway.catalog import Catalog
from gateway.cell_check import CellChecks
from gateway.chat import Chat
from gateway.credentials.keys import Keys, KeysError
from gateway.credentials.known import Secrets
from gateway.credentials.store import CredentialRows
from gateway.credentials.vault import Vault
from gateway.data_dir import DataDir, DataDirError, remove_runtime_dir, runtime_dir
from gateway.db import Database, DatabaseError
from gateway.direct_steps import DirectSteps
from gateway.gdpr.office import Office, open_office
from gateway.identity.audit import Audit
from gateway.identity.identity import Identity
from gateway.identity.keys import NewKey
from gateway.identity.opening import open_identity, tokens_of
from gateway.jupyter.kernels import JupyterKernels
from gateway.jupyter.rows import JupyterRows
from gateway.kernels import pool_of
from gateway.mcp_client.book import Book
from gateway.mcp_client.config import ConfigError, read_configs
from gateway.mcp_client.servers import McpServers
from gateway.mcp_server.front import McpFront
from gateway.observed_shapes import ObservedShapes
from gateway.operations import lag
from gateway.operations.draining import Drain
from gateway.operations.metrics import Metrics
from gateway.operations.outward import open_tracer, upstream_hooks
from gateway.operations.readiness import Readiness, readiness_of
from gateway.peers.together import Peers, open_peers
from gateway.postgres import PostgresError
from gateway.profiles import profile_for
from gateway.savings import Savings
from gateway.schedules.keeper import Schedules
from gateway.schedules.opening import schedules_of
from gateway.session_rows import SessionRows
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.start_error import StartError
from gateway.starting import (
    cancelled,
    check_everyday_tools,
    checker_of,
    model_of,
    open_database_url,
    policies_of,
    registry_of,
    spool_of,
)
from gateway.tokens import prepare
from gateway.tool_catalogue import Catalogue
from gateway.tool_vectors import ToolVectors
from gateway.tracing import Tracer, tracing_by
from gateway.transcripts.erasure import Eraser
from gateway.transcripts.index import Index
from gateway.transcripts.output_file import Room
from gateway.transcripts.redaction import Redaction
from gateway.transcripts.replay import Replayer
from gateway.transcripts.store import TranscriptStore
from gateway.transcripts.upkeep import Upkeep
from gateway.types import BoundaryObserver
from gateway.work.runs import WorkRuns
from kernel_pool.pool import Pool
from kernel_pool.types import KernelPoolError
from servers.catalog.embedding import MiniLm
from servers.registry import Collision, Registry


@dataclass(frozen=True)
class Gateway:
    """What the routes work with."""

    settings: Settings
    #: Who calls, and what they did to the gateway.
    identity: Identity
    audit: Audit
    #: Where this is the first start on the database.
    first_key: NewKey | None
    #: The operator's token.
    token: str
    database: Database
    #: The tools; `catalog` has the products.
    catalogue: Catalogue
    mcp: McpServers
    broker: Broker
    pool: Pool
    sessions: Sessions
    chat: Chat
    #: Who may do what to calls that wait for a person: the broker's side, and the person's.
    gate: Gate
    desk: Desk
    reverts: Reverts
    catalog: Catalog
    transcripts: TranscriptStore
    upkeep: Upkeep
    #: Of the transcripts.
    index: Index
    #: Long work of tools.
    work: WorkRuns
    savings: Savings
    schedules: Schedules
    replayer: Replayer
    eraser: Eraser
    office: Office
    scrubber: Scrubber
    data_dir: DataDir
    vault: Vault
    contexts: Contexts
    jupyter: JupyterKernels
    metrics: Metrics
    readiness: Readiness
    drain: Drain
    mcp_front: McpFront
    #: None: tracing is off.
    tracer: Tracer | None
    #: Other gateways on the database.
    peers: Peers
    started: datetime
    #: One line for people.
    isolation: str


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    registry: Registry | None = None,
    observers: tuple[BoundaryObserver, ...] = (),
    clock: Clock = wall_clock,
) -> AsyncIterator[Gateway]:
    """A running gateway without its HTTP server.

    `registry`, `observers` (of tool calls) and `clock` (by which approvals expire) are for other tool sets and tests.

    Raises:
        StartError
    """
    async with AsyncExitStack() as stack:
        try:
            gateway = await _start(stack, settings, registry, observers, clock)
        except (
            DataDirError,
            DatabaseError,
            PostgresError,
            KernelPoolError,
            Collision,
            KeysError,
            ConfigError,
        ) as error:
            raise StartError(str(error)) from error
        yield gateway


async def _start(
    stack: AsyncExitStack,
    settings: Settings,
    registry: Registry | None,
    observers: tuple[BoundaryObserver, ...],
    clock: Clock,
) -> Gateway:
    policies = policies_of(settings)
    registry = registry or registry_of(settings)
    mcp_configs = read_configs(settings, registry.documents)
    check_everyday_tools(settings, registry)
    data_dir = DataDir(settings.data_dir)
    data_dir.open()
    stack.callback(data_dir.close)
    token = settings.server.token.get_secret_value() if settings.server.token else data_dir.token()
    tokens = tokens_of(settings, token)
    folder = runtime_dir(settings.runtime_dir, data_dir.path)
    stack.callback(remove_runtime_dir, folder)
    files = {"tools.json": registry.index(), "broker.json": msgspec.json.encode(_broker_rules(settings))}
    keep = settings.pool.on_stop == "keep"
    metrics, drain = Metrics(settings.metrics, settings.model), Drain(settings.server.shutdown_grace_s)
    pool, isolation = await pool_of(settings, folder / "pool", files, metrics.leased)
    database_url = asyncio.create_task(open_database_url(stack, settings, data_dir.path, folder))
    token_tables = asyncio.create_task(asyncio.to_thread(prepare))
    try:
        await pool.start()
    finally:
        url = await database_url
        stack.push_async_callback(_close_pool, pool, keep)
    await token_tables
    database = Database(url, settings.database)
    await database.open()
    stack.push_async_callback(database.close)
    peers = await open_peers(stack, database, settings, data_dir.id(), keep=keep)
    tracer = await stack.enter_async_context(open_tracer(settings.tracing))
    http = await stack.enter_async_context(httpx.AsyncClient(event_hooks=upstream_hooks(settings.tracing)))
    identity, first_key = await open_identity(stack, settings, tokens, database, http)
    embedder = MiniLm()
    secrets = Secrets([token, *(secret for each in mcp_configs for secret in each.secrets)])
    secrets.add([first_key.text] if first_key else [])
    vault = Vault(CredentialRows(database), Keys(settings.credentials, data_dir.path), settings.credentials, secrets)
    await vault.open()
    contexts = Contexts(settings, database, http, embedder, vault, secrets)
    stack.push_async_callback(contexts.close)
    scrubber = Scrubber(contexts.secrets)
    shapes = ObservedShapes(database, settings.observing)
    catalogue = Catalogue(registry, shapes)
    shapes.changed = catalogue.renew
    await shapes.open()
    stack.push_async_callback(shapes.close)
    mcp = McpServers(mcp_configs, settings.mcp, Book(database), catalogue, scrubber.text, vault.value)
    stack.push_async_callback(mcp.close)
    await mcp.open()
    approvals = ApprovalRows(database)
    gate = Gate(approvals, settings, clock=clock, redact=scrubber.text)
    journal = Journal(database, spool_of(data_dir.path))
    observers = (metrics.observe, *observers)
    vectors = ToolVectors(embedder, data_dir.path / "tool-vectors.sqlite", settings.finding)
    by_meaning, held = vectors if settings.finding.by_meaning else None, peers.owners
    runs = WorkRuns(database)
    broker = Broker(
        catalogue, journal, contexts, settings.broker, observers, shapes.learn, gate, by_meaning, held, runs
    )
    stack.push_async_callback(broker.close)
    await journal.reads.recover(settings.broker.journal_s)  # kernels that are taken over later go on from there
    checker = await checker_of(stack, settings, folder, registry)
    kept = settings.transcripts
    transcripts = TranscriptStore(
        data_dir.transcripts,
        Redaction(scrubber.known, kept.masked, lambda: secrets.forms),
        sync=kept.sync,
        at_once_kb=kept.notebook_kb,
        room=Room(data_dir.transcripts, session_mb=kept.session_mb, tenant_mb=kept.tenant_mb, free_mb=kept.free_mb),
    )
    index = Index(database)
    if peers.mirror is not None:
        transcripts.keeping.mirror = peers.mirror.push
    upkeep = Upkeep(transcripts, index, notebook_after_s=kept.notebook_after_s)
    stack.push_async_callback(upkeep.close)
    rows = SessionRows(database, peers.owners)
    sessions = Sessions(
        rows=rows,
        pool=pool,
        broker=broker,
        transcripts=transcripts,
        head=index.head,
        settings=settings.cell,
        files=settings.files,
        profile_for=partial(profile_for, settings),
        checks=CellChecks(checker, catalogue),
        redact=scrubber.known,
        bring_up=None if peers.mirror is None else peers.mirror.bring_up,
        recover=settings.peers.restore,
    )
    peers.owners.lost = sessions.moves.evict
    stack.push_async_callback(_close_sessions, sessions, drain, keep)
    stack.callback(gate.close)  # first: a cell that waits for a person ends in order
    jupyter = JupyterKernels(
        JupyterRows(database, peers.owners.id), sessions, settings, profile_for(settings, "analyst")
    )
    stack.push_async_callback(jupyter.close)
    async with jupyter.adopting():
        with tracing_by(tracer):
            await sessions.adopt()
    steps = DirectSteps(sessions, broker)
    resumer = Resumer(
        DueRows(database, peers.owners.id),
        settings.approvals,
        sessions=sessions,
        run_step=steps.again,
        here=lambda: sessions.here,
    )

    def decided(approval: str) -> None:
        gate.waiting.wake([approval])
        resumer.wake()

    desk = Desk(approvals, settings.approvals, decided=decided, clock=clock, scrubber=scrubber)
    eraser = Eraser(database, sessions, transcripts, index, peers.mirror)
    stack.push_async_callback(cancelled, asyncio.create_task(eraser.retain(kept.keep_days)))
    office = await open_office(
        settings.gdpr, database, data_dir, peers.owners.id, journal, upkeep, transcripts, contexts, sessions, eraser
    )
    stack.push_async_callback(office.close)
    schedules = schedules_of(settings, database, sessions, peers.owners.id)
    stack.push_async_callback(schedules.close)
    sessions.ran.append(metrics.ran)
    sessions.admit.append(identity.allowance.begin)
    for work in (
        lag.measure(settings.metrics.lag_every_s, metrics.lag.observe),
        sessions.care.reap(settings.cell.idle_s),
        sessions.care.keep_saving(),
        resumer.run(),
        upkeep.run(),
        schedules.keep(),
        peers.owners.run(),
        eraser.follow(peers.owners.id),
        office.run(),
    ):
        stack.push_async_callback(cancelled, asyncio.create_task(work))
    chat = Chat(
        sessions=sessions,
        rows=rows,
        steps=steps,
        notices=Notices(approvals),
        catalogue=catalogue,
        model=model_of(stack, settings),
        settings=settings.agent,
        policies=policies,
        code_kb=settings.cell.code_kb,
    )
    stack.push_async_callback(chat.close)
    chat.turned.append(metrics.turned)
    mcp_front = McpFront(settings.mcp_server, settings.server.max_request_mb)
    stack.push_async_callback(mcp_front.close)
    chat.admit.append(identity.allowance.check)
    return Gateway(
        settings=settings,
        identity=identity,
        audit=Audit(database),
        first_key=first_key,
        token=token,
        database=database,
        catalogue=catalogue,
        mcp=mcp,
        broker=broker,
        pool=pool,
        sessions=sessions,
        chat=chat,
        gate=gate,
        desk=desk,
        reverts=Reverts(database, catalogue.tool, broker.by_person),
        catalog=Catalog(contexts, database, embedder, http),
        transcripts=transcripts,
        upkeep=upkeep,
        index=index,
        work=runs,
        schedules=schedules,
        savings=Savings(database, settings.savings, settings.model),
        eraser=eraser,
        office=office,
        replayer=Replayer(
            rows=rows,
            pool=pool,
            answers=lambda: FromJournal(catalogue, journal, settings.broker, scrubber),
            search=broker.search,
            settings=settings.broker,
            deadline_s=settings.cell.deadline_s,
            profile_for=partial(profile_for, settings),
            redact=scrubber.known,
            spooling=transcripts.spooling,
        ),
        scrubber=scrubber,
        data_dir=data_dir,
        vault=vault,
        contexts=contexts,
        jupyter=jupyter,
        metrics=metrics,
        readiness=readiness_of(settings.ready, database, pool, drain, data_dir.path, folder),
        drain=drain,
        mcp_front=mcp_front,
        tracer=tracer,
        peers=peers,
        started=datetime.now(UTC),
        isolation=isolation,
    )


def _broker_rules(settings: Settings) -> dict[str, float]:
    """What kernels know of their broker, beside its socket: a call waits as long for a gateway as its kernel lives."""
    return {"patience_s": settings.pool.orphan_grace_s}


async def _close_pool(pool: Pool, keep: bool) -> None:
    """Kernels of an earlier gateway that this one did not come to adopt are left to the next one all the same."""
    await pool.close(keep=keep or bool(pool.adopted))


async def _close_sessions(sessions: Sessions, drain: Drain, keep: bool) -> None:
    await sessions.close(drain.left_s, keep=keep)
