"""`python -m demo.shop`: the shop double on loopback, until it is interrupted.

Keys come by environment, so that they stand in no process list: SHOP_CONSUMER_KEY, SHOP_CONSUMER_SECRET,
SHOP_CONTROL_TOKEN. SHOP_MORE_KEYS adds further ones, separated by blanks: key:secret:permissions, where permissions are
read, write or read_write.
"""

from __future__ import annotations

import argparse
import os
import sys

from demo import tau
from demo.serving import serve
from demo.shop.app import create_app
from demo.shop.auth import Key
from demo.shop.seed import build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.shop", description="A WooCommerce double on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default)")
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead of a port")
    options = parser.parse_args()
    missing = [n for n in ("SHOP_CONSUMER_KEY", "SHOP_CONSUMER_SECRET", "SHOP_CONTROL_TOKEN") if not os.environ.get(n)]
    if missing:
        print(
            f"Set {', '.join(missing)}: the shop's REST key, its secret, and the token of its controls.",
            file=sys.stderr,
        )
        return 2
    try:
        seed = build(tau.load_data())
    except tau.DataMissing as error:
        print(error, file=sys.stderr)
        return 2
    keys = [Key(os.environ["SHOP_CONSUMER_KEY"], os.environ["SHOP_CONSUMER_SECRET"])]
    keys += [Key.read(text) for text in os.environ.get("SHOP_MORE_KEYS", "").split()]
    serve(create_app(seed, keys, os.environ["SHOP_CONTROL_TOKEN"]), port=options.port, fd=options.fd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
