"""The gateway that the command line asks: the one that is named, or the one that runs on the data folder."""

from __future__ import annotations

from pathlib import Path

from gateway.data_dir import DataDir
from gateway.settings import load_settings
from omniops_client import Client, OmniopsError


class NoGateway(OmniopsError):
    """It is not said which one, and none runs here. The message is for people."""


def client_for(data_dir: Path | None, url: str | None, token: str | None, *, silence_s: float | None) -> Client:
    """A client of the gateway that is named, or of the one that runs on the data folder. It asks once.

    Raises:
        OmniopsError, SettingsError
    """
    return Client(*address_of(data_dir, url, token), silence_s=silence_s, retries=0)


def address_of(data_dir: Path | None, url: str | None, token: str | None) -> tuple[str, str]:
    """Address and access token of the gateway that is named, or of the one that runs on the data folder.

    Raises:
        NoGateway, SettingsError
    """
    settings = load_settings(data_dir=data_dir)
    url = url or (str(settings.client.url) if settings.client.url else None)
    token = token or (settings.client.token.get_secret_value() if settings.client.token else None)
    if url is None:
        folder = DataDir(settings.data_dir)
        running = folder.running()
        if running is None:
            raise NoGateway(
                f"No gateway runs on the data folder {folder.path}. Start one (omniops serve), or name one "
                "with --url and --token."
            )
        return running.url, token or running.token
    if token is None:
        raise NoGateway("--url needs the gateway's access token: --token, or OMNIOPS_CLIENT__TOKEN.")
    return url, token
