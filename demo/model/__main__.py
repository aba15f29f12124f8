"""`python -m demo.model --scripts FILE`: the scripted model on loopback, until it is interrupted.

Its key comes by environment: MODEL_KEY.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from demo.model.app import create_app
from demo.model.script import load
from demo.serving import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.model", description="A scripted model on loopback.")
    parser.add_argument("--scripts", type=Path, required=True, help="JSON file with what the model plays")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default)")
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead of a port")
    options = parser.parse_args()
    key = os.environ.get("MODEL_KEY")
    if not key:
        print("Set MODEL_KEY: the key that the model's callers must have.", file=sys.stderr)
        return 2
    try:
        scripts = load(options.scripts)
    except (OSError, msgspec.DecodeError) as error:
        print(f"The scripts in {options.scripts} cannot be read: {error}", file=sys.stderr)
        return 2
    serve(create_app(scripts, key), port=options.port, fd=options.fd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
