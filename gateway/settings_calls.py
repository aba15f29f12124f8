"""Settings of tool calls: budgets of the broker, shapes learned from results, MCP servers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from .settings_group import Group


class BrokerSettings(Group):
    calls_per_cell: int = Field(1000, gt=0, description="Tool calls in one cell.")
    calls_per_session: int = Field(10_000, gt=0, description="Tool calls in one session.")
    concurrent_calls: int = Field(16, gt=0, description="Tool calls of one session under way at once.")
    connections: int = Field(64, gt=0, description="Connections of one sandbox to its broker socket.")
    call_timeout_s: float = Field(60.0, gt=0, description="Wall time of one tool call.")
    concurrent_streams: int = Field(8, gt=0, description="Results of one session that stream at once.")
    seconds_per_cell: float = Field(600.0, gt=0, description="Time of all tool calls of one cell, added up.")
    seconds_per_session: float = Field(36_000.0, gt=0, description="Time of all tool calls of one session, added up.")
    rows_per_cell: int = Field(20_000_000, gt=0, description="Rows in the results of one cell's tool calls together.")
    rows_per_session: int = Field(200_000_000, gt=0, description="Rows in the results of one session's tool calls.")
    dollars_per_cell: float = Field(1.0, gt=0, description="What one cell's tool calls may cost, as tools say it.")
    dollars_per_session: float = Field(10.0, gt=0, description="What one session's tool calls may cost.")
    request_mb: int = Field(16, gt=0, le=16, description="Largest request frame from a kernel, MiB.")
    request_values: int = Field(200_000, gt=0, description="Values in the arguments of one call, nested ones included.")
    result_mb: int = Field(16, gt=0, le=256, description="Largest result of one tool call, or part of a stream, MiB.")
    cell_mb: int = Field(256, gt=0, description="Arguments and results of one cell's tool calls together, MiB.")
    session_mb: int = Field(4096, gt=0, description="Arguments and results of one session's tool calls together, MiB.")
    entered_after_s: float = Field(0.02, ge=0, description="A read that takes longer is journaled before it is over.")
    journal_s: float = Field(10.0, gt=0, description="How long a write, or a cell's end, waits for the rows of reads.")
    looks_per_second: int = Field(
        100, gt=0, description="Questions of one session about tools (imports, search) in a second; more of them wait."
    )
    look_mb: int = Field(8, gt=0, le=256, description="Largest answer to one question about tools, MiB.")
    stall_s: float = Field(30.0, gt=0, description="Time for a kernel to send the rest of a frame or take an answer.")
    settle_s: float = Field(5.0, ge=0, description="How long the end of a cell waits for writes under way.")


class ObservingSettings(Group):
    enabled: bool = Field(True, description="Learn return types of foreign tools that declare none from their results.")
    results: int = Field(1000, gt=0, description="Results of one tool and tenant that are learned from.")
    pause_s: float = Field(1.0, ge=0, description="What comes within this time is written at once.")
    waiting: int = Field(100, gt=0, description="Results waiting to be looked at; further ones are not learned from.")
    depth: int = Field(8, gt=0, le=20, description="Levels of a result that are kept.")
    keys: int = Field(60, gt=0, description="Keys of an object; one with more counts as a map.")
    items: int = Field(50, gt=0, description="Items of a list, and of a map, that are looked at.")
    values: int = Field(5_000, gt=0, description="Values of one result that are looked at.")


class McpSettings(Group):
    file: Path | None = Field(None, description="`.mcp.json` with MCP servers for all tenants. None: no such servers.")
    connect_s: float = Field(30.0, gt=0, description="Time for a server to start, greet and list its tools.")
    silence_s: float = Field(60.0, gt=0, description="Time of a call without a result or a sign of progress.")
    idle_s: float = Field(900.0, gt=0, description="After this time without a call a connection is closed.")
    backoff_s: float = Field(1.0, gt=0, description="Pause after a failed connection; it doubles from one to the next.")
    backoff_maximum_s: float = Field(300.0, gt=0, description="But is no longer than this.")
    wait_s: float = Field(5.0, ge=0, description="Longest such pause that a call waits for instead of being refused.")
    stop_grace_s: float = Field(2.0, gt=0, description="Time for a stdio server to end before it is killed.")
    message_mb: int = Field(16, gt=0, description="Largest message of a server, MiB.")
    tools: int = Field(2000, gt=0, description="Tools that are taken of one server.")
    definition_kb: int = Field(128, gt=0, description="Largest definition of a tool, KiB.")
    connections: int = Field(64, gt=0, description="Connections to MCP servers at once, over all tenants.")
    watch_s: float = Field(5.0, gt=0, description="How soon what people decide at one gateway counts at the others.")


class FindingSettings(Group):
    by_meaning: bool = Field(
        True, description="Tools are ranked by meaning too, with the local embedding model. False: by words alone."
    )
    most_vectors: int = Field(50_000, gt=0, description="Tools of one tenant; of more, all are ranked by words alone.")
    kept_vectors: int = Field(200_000, gt=0, description="Tools whose vectors are kept in data_dir (800 bytes each).")
