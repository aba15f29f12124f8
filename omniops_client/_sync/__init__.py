# Made of omniops_client/_async by `make client`. Do not change it here.
"""The client, blocking. `omniops_client/_sync` is made of this folder: `make client`."""
