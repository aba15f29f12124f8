"""`python -m demo`: the whole product at work on a real shop's data, checked task by task."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from demo.gateway import GatewayFailed
from demo.processes import ProcessFailed
from demo.results import Results
from demo.run import choose, run
from demo.show import Screen
from demo.tau import DataMissing


def main() -> int:
    options = _options()
    screen = Screen()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        tasks, excluded = choose(options.tasks, options.count)
        results, path = run(tasks, excluded, options.data_dir.resolve(), screen)
    except (DataMissing, ProcessFailed, GatewayFailed, OSError, ValueError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything is stopped.", file=sys.stderr)
        return 130
    screen.table(results)
    _epilogue(results, screen, options.data_dir)
    print(f"results: {path}")
    return 0 if results.good or not results.scripted else 1


def _epilogue(results: Results, screen: Screen, data_dir: Path) -> None:
    matched = sum(each.cells.good for each in results.tasks)
    screen.say(f"\n{matched} of {len(results.tasks)} tasks left the shop as the reference does.")
    first = Path(results.tasks[0].transcript).stem
    screen.say(f"Transcripts (notebooks, open in Jupyter): {results.transcripts}")
    screen.say(f"Open one here: {_omniops()} transcripts show {first} --data-dir {data_dir}")


def _omniops() -> str:
    """The product's command, as it can be typed from here."""
    script = Path(sys.executable).with_name("omniops")
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--tasks", default="", help='"all", or ids such as 0,12,98; default: a choice of every kind')
    parser.add_argument("--count", type=int, help="run only the first so many of them")
    parser.add_argument("--data-dir", type=Path, default=Path(".omniops/demo"), help="default: %(default)s")
    return parser.parse_args()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
