"""The client, asynchronous. `omniops_client/_sync` is made of this folder: `make client`."""
