"""A new tool server from a template: a tool that works, and its test."""

from __future__ import annotations

import keyword
from pathlib import Path

import servers
from servers.lint import SERVER_NAME

_INIT = '"""{title}: say in one line what it is about."""\n'

_TOOLS = '''"""The tools of this server. `omniops tools check {server}` says what could be better."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from servers.context import ToolContext
from servers.errors import ToolNotFound
from servers.tool import EVERYBODY, tool

_GREETINGS = {{"de": "Guten Tag", "en": "Good day", "fr": "Bonjour"}}


class Greeting(TypedDict):
    """What `greet` returns."""

    text: str
    language: Annotated[str, Meta(description="two letters, such as 'en'")]


@tool(effect="read", roles=EVERYBODY)
async def greet(
    ctx: ToolContext,
    *,
    name: Annotated[str, Meta(description="who is greeted", min_length=1, max_length=100)],
    language: Annotated[str, Meta(description="two letters, such as 'en'", pattern="^[a-z]{{2}}$")] = "en",
) -> Greeting:
    """Greet somebody in their language."""
    if language not in _GREETINGS:
        raise ToolNotFound(f"There is no greeting in {{language!r}}.", hint=f"Languages: {{', '.join(_GREETINGS)}}.")
    return Greeting(text=f"{{_GREETINGS[language]}}, {{name}}!", language=language)
'''

_TEST = '''"""The tools of {server}, called as a cell calls them: through a real kernel and broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import ToolSession, tool_session
from servers.errors import ToolInputError, ToolNotFound


@pytest.fixture(scope="module")
def tools() -> Iterator[ToolSession]:
    with tool_session(Path(__file__).parent) as session:
        yield session


def test_a_greeting(tools: ToolSession) -> None:
    assert tools.call("{server}.greet", name="Ann", language="fr") == {{"text": "Bonjour, Ann!", "language": "fr"}}


def test_an_unknown_language_is_told(tools: ToolSession) -> None:
    with pytest.raises(ToolNotFound, match="no greeting in 'xx'"):
        tools.call("{server}.greet", name="Ann", language="xx")


def test_a_wrong_argument_is_told(tools: ToolSession) -> None:
    with pytest.raises(ToolInputError, match="Did you mean name"):
        tools.call("{server}.greet", who="Ann")
'''


class ServerExists(Exception):
    """The name is taken, or is none."""


def make_server(folder: Path, server: str) -> tuple[Path, ...]:
    """The files of a new server below `folder`; the last is its test.

    Raises:
        ServerExists: nothing is made.
    """
    if not SERVER_NAME.fullmatch(server) or keyword.iskeyword(server):
        raise ServerExists(
            f"{server[:60]!r} is no name for a server: words in lower case joined by _, such as weather."
        )
    taken = [Path(place) / server for place in servers.__path__] + [folder / server, folder / f"test_{server}.py"]
    for path in taken:
        if path.exists() or path.with_suffix(".py").exists():
            raise ServerExists(f"There is {path} already.")
    files = {
        folder / server / "__init__.py": _INIT.format(title=server.replace("_", " ").capitalize()),
        folder / server / "tools.py": _TOOLS.format(server=server),
        folder / f"test_{server}.py": _TEST.format(server=server),
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tuple(files)
