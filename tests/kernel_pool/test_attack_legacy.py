"""A kernel's last will: what one leaves behind to be found, imported or run by the next. Nothing may arrive."""

from __future__ import annotations

import pytest
from attack import Arena, output

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Where Python, IPython, Jupyter and shells look for code and settings before they are told to.
POISON = """
import pathlib, builtins
bad = "import builtins; builtins.poisoned = True\\n"
home = pathlib.Path.home()
places = [
    home / '.ipython/profile_default/startup/00.py', home / '.ipython/profile_default/ipython_kernel_config.py',
    home / '.ipython/profile_default/ipython_config.py', home / 'ipython_config.py', home / '.pdbrc', home / '.bashrc',
    home / '.jupyter/jupyter_config.py', home / '.local/lib/python3.11/site-packages/usercustomize.py',
    home / '.local/lib/python3.11/site-packages/x.pth', home / '.config/matplotlib/matplotlibrc', home / '.pythonrc',
    home / 'pandas.py', home / 'json.py', home / 'sitecustomize.py', home / 'startup.ipynb', home / '.netrc',
    pathlib.Path('/tmp/pandas.py'), pathlib.Path('/dev/shm/left'), pathlib.Path('/tmp/left'),
]
for place in places:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(bad)
    except OSError:
        pass
builtins.poisoned = True
import json, sys, IPython, subprocess
json.loads = lambda *_: 'poisoned'
class Hook:
    @staticmethod
    def find_spec(*_): builtins.poisoned = True
sys.meta_path.insert(0, Hook)
sys.path.insert(0, '/tmp')
os.environ.update(PYTHONSTARTUP='/tmp/left', LD_PRELOAD='/tmp/left', PYTHONPATH='/tmp')
get_ipython().events.register('pre_execute', lambda: setattr(builtins, 'poisoned', True))
get_ipython().user_ns['secret_of_tenant_one'] = 'here'
type(get_ipython()).run_cell = None
subprocess.Popen = None
print(sum(place.exists() for place in places) > 10)
"""

LOOK = """
import builtins, json, sys, subprocess, pathlib
left = [str(path) for top in ('/tmp', '/dev/shm', '/home') for path in pathlib.Path(top).rglob('*') if path.is_file()]
print(hasattr(builtins, 'poisoned'), json.loads('1'), [h for h in map(str, sys.meta_path) if 'Hook' in h], left)
print('secret_of_tenant_one' in dir(), sorted(set(os.environ) & {'PYTHONSTARTUP', 'LD_PRELOAD'}), '/tmp' in sys.path)
print(subprocess.check_output([sys.executable, '-c', 'import builtins; print(hasattr(builtins, "poisoned"))']))
print(list(get_ipython().history_manager.get_tail(100)))
"""


async def test_the_next_kernel_finds_nothing_of_the_last_one(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        assert output(await kernel.execute(POISON, deadline_s=30)) in ("True", "")
    async with arena.attacker() as kernel:
        first, second, third, history = output(await kernel.execute(LOOK, deadline_s=30)).splitlines()
    assert first == "False 1 [] []"
    assert second == "False [] False"
    assert third == "b'False\\n'"
    assert "secret_of_tenant_one" not in history
    assert "poisoned = True" not in history


async def test_a_lease_never_gives_a_used_kernel(arena: Arena) -> None:
    ids = set()
    for _ in range(3):
        async with arena.attacker() as kernel:
            ids.add(kernel.id)
            assert output(await kernel.execute("print('used' in globals()); used = True", deadline_s=30)) == "False"
    assert len(ids) == 3


async def test_the_folder_of_a_kernel_goes_with_it(arena: Arena) -> None:
    async with arena.attacker() as kernel:
        directory = kernel.directory
        assert directory.exists()
    assert not directory.exists()
