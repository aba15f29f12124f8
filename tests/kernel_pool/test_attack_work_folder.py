"""From outside and inside at once: the work folder of a kernel whose cells set traps in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
from attack import LIMITS, Arena, output

from kernel_pool.files import PIECE, About, FilesSilent, FileTrouble, WorkFolder

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def trouble(asked: Awaitable[object]) -> str:
    with pytest.raises(FileTrouble) as error:
        await asked
    return error.value.trouble


async def whole(folder: WorkFolder, path: str) -> bytes:
    about = await folder.look(path)
    return b"".join([piece async for piece in folder.read(path, about, 0, about.size)])


async def test_files_go_up_and_down_as_they_are(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 30)
        large = bytes(range(256)) * (PIECE // 256) * 2 + b"end"
        about = await folder.write("in/deep/large.bin", pieces(large[:10], large[10:]))
        assert (about.kind, about.size) == ("file", len(large))
        assert await whole(folder, "in/deep/large.bin") == large
        assert (await folder.write("empty", pieces())).size == 0
        code = "import os, hashlib; print(hashlib.sha256(open('in/deep/large.bin', 'rb').read()).hexdigest())"
        from hashlib import sha256

        assert output(await kernel.execute(code, deadline_s=30)).strip() == sha256(large).hexdigest()
        await kernel.execute("open('made', 'w').write('in a cell')\nos.chdir('/')", deadline_s=30)
        assert await whole(folder, "made") == b"in a cell"
        entries, more = await folder.list("")
        assert ([(entry.name, entry.kind) for entry in entries], more) == (
            [("empty", "file"), ("in", "folder"), ("made", "file")],
            False,
        )
        entries, more = await folder.list("", after="empty", limit=1)
        assert ([entry.name for entry in entries], more) == (["in"], True)
        assert await trouble(folder.delete("in")) == "not_empty"
        for path in ("in/deep/large.bin", "in/deep", "in", "made", "empty"):
            await folder.delete(path)
        assert await folder.list("") == ((), False)


async def test_no_path_leads_out(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 30)
        code = """
for target in ('/', '/etc', '/etc/passwd', '/opt/omniops', '..', '/proc/self/environ'):
    os.symlink(target, 'to' + target.replace('/', '-'))
os.mkdir('inner'); os.symlink('inner', 'alias'); open('inner/x', 'w').write('x')
"""
        await kernel.execute(code, deadline_s=30)
        for path in ("..", "../etc/passwd", "/etc/passwd", "inner/../../etc/passwd", "inner//x", "./inner", "a\0b"):
            assert await trouble(folder.look(path)) == "bad_path", path
            assert await trouble(folder.write(path, pieces(b"x"))) == "bad_path", path
            assert await trouble(folder.delete(path)) == "bad_path", path
        for path in ("to-/etc/passwd", "to-etc/passwd", "to-etc-passwd", "to-proc-self-environ", "to../x", "alias/x"):
            assert await trouble(folder.look(path)) == "not_found", path
        assert await trouble(folder.list("to-etc")) == "not_found"
        # a link itself is replaced, or removed: never what it leads to
        await folder.write("to-etc-passwd", pieces(b"mine"))
        assert await whole(folder, "to-etc-passwd") == b"mine"
        await folder.delete("alias")
        assert await whole(folder, "inner/x") == b"x"
        entries, _ = await folder.list("")
        assert {entry.kind for entry in entries if entry.name.startswith("to")} == {"link", "file"}


async def test_what_is_no_file_makes_nobody_wait(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 30)
        code = "os.mkfifo('pipe'); os.mkdir('folder'); open('open', 'w').write('1')"
        assert (await kernel.execute(code, deadline_s=30)).status == "ok"
        for path in ("pipe", "folder"):
            assert await trouble(folder.look(path)) == "not_a_file", path
            assert await trouble(folder.write(path, pieces(b"x"))) == "not_a_file", path
        assert await trouble(folder.write("open/below", pieces(b"x"))) == "not_found"
        assert await trouble(folder.look("x" * 300)) == "bad_path"
        await folder.delete("pipe")


async def test_a_full_folder_says_so_and_keeps_nothing_of_what_did_not_fit(arena: Arena) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * PIECE

    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 30)
        assert await trouble(folder.write("endless", endless())) == "full"
        await folder.write("small", pieces(b"fits"))
        said = await kernel.execute("print(sorted(os.listdir('.')))", deadline_s=30)
        assert output(said) in ("['small']", "['.ipython', 'small']")
        # a hole is as large as a file may be, and a part of it costs nobody more than that part
        size = LIMITS.disk_mb * 2**20
        await kernel.execute(f"os.truncate('small', {size})", deadline_s=30)
        about = await folder.look("small")
        assert about.size == size
        assert [piece async for piece in folder.read("small", about, size - 5, 5)] == [b"\0" * 5]


async def test_it_works_beside_a_cell_that_runs_and_what_is_cut_short_leaves_nothing(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 30)
        code = "while not os.path.exists('stop'): open('tick', 'w').write('t')"
        cell = asyncio.create_task(kernel.execute(code, deadline_s=60))
        while not [entry.name for entry in (await folder.list(""))[0]]:  # it may begin later than it was asked for
            await asyncio.sleep(0.02)

        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionError("the client went away")

        with pytest.raises(ConnectionError):
            await folder.write("never", broken())
        await folder.write("stop", pieces(b""))
        assert (await cell).status == "ok"
        assert [entry.name for entry in (await folder.list(""))[0]] == ["stop", "tick"]
        assert "part" not in output(await kernel.execute("print(os.listdir('.'))", deadline_s=30))


async def test_a_kernel_that_lies_is_not_believed(arena: Arena) -> None:
    lie = """
import gc
kernel = get_ipython().kernel
answers = iter({answers})
def handle(stream, ident, parent):
    content, data = next(answers)
    kernel.session.send(stream, 'files_reply', content, parent, ident=ident, buffers=data)
kernel.control_handlers['files_request'] = handle
"""
    file = {"kind": "file", "size": 5, "modified_ns": 1, "inode": 1}
    answers = [
        ({"entries": [{**file, "name": name} for name in ("../up", "a/b", "", "x" * 2000, "fine")]}, []),
        ({"entries": "none"}, []),
        ({"error": "no such word"}, []),
        ({**file, "size": -5}, []),
        (file, []),
        (file, [b"x" * 100]),
        ({**file, "inode": 2}, [b"later"]),
        (file, []),
    ]
    async with arena.attacker() as kernel:
        folder = WorkFolder(kernel, 2)
        assert (await kernel.execute(lie.format(answers=answers), deadline_s=30)).status == "ok"
        assert [entry.name for entry in (await folder.list(""))[0]] == ["fine"]
        with pytest.raises(FilesSilent):
            await folder.list("")
        assert await trouble(folder.look("x")) == "refused"
        assert (await folder.look("x")).size == 0
        about = await folder.look("x")
        assert about == About("file", 5, 1, 1)
        reading = folder.read("x", about, 0, 10)
        assert await anext(reading) == b"x" * 10  # not more than was asked for
        with pytest.raises(FilesSilent, match="was changed"):
            await anext(folder.read("x", about, 0, 5))
        with pytest.raises(FilesSilent, match="was changed"):  # and no data for ever is no data
            await anext(folder.read("x", about, 0, 5))
        with pytest.raises(FilesSilent, match="did not answer"):  # its lies are at an end
            await folder.look("x")
