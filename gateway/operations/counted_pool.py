"""The pool with its leases counted, and bounded: who would wait behind many others is told so at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kernel_pool.pool import Kernel, Pool
from kernel_pool.types import BadInjection, PoolExhausted, QuotaExceeded, UnknownProfile

#: Profile, outcome, seconds.
Counted = Callable[[str, str, float], None]


class CountedPool(Pool):
    """A `Pool` whose leases are told to `counted`. `most_leases`: that may be under way at once."""

    counted: Counted = staticmethod(lambda profile, outcome, seconds: None)
    most_leases: int = 1_000_000
    _leases = 0

    async def lease(
        self,
        profile: str | None = None,
        *,
        tenant: str = "",
        note: str = "",
        env: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Kernel:
        """As the pool's. Raises PoolExhausted at once where too many leases wait."""
        name, outcome, begun = self.profile(profile).name, "failed", time.monotonic()
        if self._leases >= self.most_leases:
            self.counted(name, "refused", 0.0)
            raise PoolExhausted(f"{self._leases} leases wait for kernels already (pool.leases). Try again in a moment.")
        self._leases += 1
        try:
            kernel = await super().lease(name, tenant=tenant, note=note, env=env, files=files)
            outcome = "leased"
            return kernel
        except QuotaExceeded:
            outcome = "quota"
            raise
        except PoolExhausted:
            outcome = "exhausted"
            raise
        except (BadInjection, UnknownProfile):
            outcome = "invalid"
            raise
        finally:
            self._leases -= 1
            self.counted(name, outcome, time.monotonic() - begun)
