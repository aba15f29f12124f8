"""The places of one profile: the one that new kernels come from, and those of other generations that empty."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kernel_pool.folders import place_folder
from kernel_pool.place import Found, Place
from kernel_pool.types import KernelPoolError, PlaceConfig, PoolConfig, Profile, StartFailed

_log = logging.getLogger(__name__)

PlaceOf = Callable[[PlaceConfig], Place]


@dataclass(eq=False)
class Site:
    """A place that was started, in its folder, and how many kernels live there, those that start included."""

    place: Place
    folder: str
    generation: str
    kernels: int = field(default=0)


class Sites:
    """Opens, changes and closes the places of one profile."""

    def __init__(self, config: PoolConfig, profile: Profile, place_of: PlaceOf, *, retired: bool = False) -> None:
        self._config = config
        self._profile = profile
        self._place_of = place_of
        self._retired = retired
        self._turn = asyncio.Lock()
        self._open = True
        self.current: Site | None = None
        self.draining: list[Site] = []

    async def open(self) -> Site:
        """The place for new kernels, started if it was not yet. Raises IsolationUnavailable or StartFailed."""
        if self.current is not None:
            return self.current
        async with self._turn:
            if not self._open:
                raise StartFailed("the pool is closed")
            if self.current is None:
                self.current = await self._started(await self.generation())
            return self.current

    async def generation(self) -> str:
        """What a new kernel would be made from now."""
        place = self._place_of(self._config.place(self._profile))
        return await asyncio.to_thread(lambda: place.generation)

    async def take_over(self, folders: Sequence[str]) -> list[tuple[Site, Found]]:
        """Attach to what lives in the folders of an earlier gateway. Folders where nothing does are cleared."""
        wanted = "" if self._retired else place_folder(self._profile.name, await self.generation())
        found: list[tuple[Site, Found]] = []
        for folder in folders:
            if folder == wanted:
                site = await self.open()
            else:
                try:
                    site = await self._drained(folder)
                except (KernelPoolError, OSError) as error:
                    _log.warning("what an earlier gateway left in %s cannot be reached: %s", folder, error)
                    continue
            kernels = await site.place.attach()
            site.kernels += len(kernels)
            found += [(site, kernel) for kernel in kernels]
            if site is not self.current and not kernels:
                await self._close(site)
        return found

    async def successor(self, config: PoolConfig | None = None) -> Site | None:
        """A started place of the generation of now, if that is another than the current one's; see `switch`.

        Raises IsolationUnavailable or StartFailed; the current place stays as it is.
        """
        async with self._turn:
            if config is not None:
                self._config = config
            if self.current is None or not self._open:
                return None
            generation = await self.generation()
            if generation == self.current.generation:
                return None
            return await self._started(generation)

    async def switch(self, site: Site) -> None:
        """From now on new kernels come from `site`; the place before is closed when its last kernel is gone."""
        old, self.current = self.current, site
        if old is not None:
            self.draining.append(old)
            await self._close_if_empty(old)

    async def gone(self, site: Site) -> None:
        """A kernel of `site` has ended and is cleared away."""
        site.kernels -= 1
        await self._close_if_empty(site)

    async def abandon(self, site: Site) -> None:
        """Close a successor that was not switched to."""
        await site.place.close()

    async def close(self, *, keep: bool = False) -> None:
        """Close every place, or with `keep` let go of them. Safe to call again."""
        self._open = False
        async with self._turn:
            sites = [*self.draining, *([self.current] if self.current else [])]
            self.draining.clear()
            self.current = None
            for site in sites:
                if keep:
                    await site.place.leave()
                await site.place.close()

    async def _started(self, generation: str) -> Site:
        folder = place_folder(self._profile.name, generation)
        if any(site.folder == folder for site in self.draining):
            # back to an earlier generation before its last kernel has gone
            folder = self._free_name(folder)
        place = self._place_of(self._config.place(self._profile, folder))
        await place.start()
        return Site(place, folder, generation)

    def _free_name(self, folder: str) -> str:
        taken = {site.folder for site in self.draining}
        return next(name for number in range(2, len(taken) + 3) if (name := f"{folder}.{number}") not in taken)

    async def _drained(self, folder: str) -> Site:
        place = self._place_of(self._config.place(self._profile, folder, draining=True))
        await place.start()
        site = Site(place, folder, "")
        self.draining.append(site)
        return site

    async def _close_if_empty(self, site: Site) -> None:
        if site in self.draining and site.kernels <= 0:
            await self._close(site)

    async def _close(self, site: Site) -> None:
        with contextlib.suppress(ValueError):
            self.draining.remove(site)
        await site.place.close()


def retired(profile: str) -> Profile:
    """A profile that is not configured any more, for what still lives of it."""
    return replace(Profile(), name=profile, preload=(), minimum=0, maximum=0)
