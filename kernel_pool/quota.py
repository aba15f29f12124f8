"""How many kernels each tenant has."""

from __future__ import annotations

from collections import Counter

from kernel_pool.types import QuotaExceeded


class Quota:
    """Counts leases, those that still wait included; `maximum` 0 is no limit."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._held: Counter[str] = Counter()

    def take(self, tenant: str) -> None:
        """Count one more. Raises QuotaExceeded. Leases of nobody ("") are not limited."""
        if tenant and 0 < self._maximum <= self._held[tenant]:
            raise QuotaExceeded(
                f"tenant {tenant} has {self._held[tenant]} kernels of at most {self._maximum}. End sessions, or raise "
                "pool.tenant_maximum."
            )
        self._held[tenant] += 1

    def adopt(self, tenant: str) -> None:
        """Count one that was granted earlier."""
        self._held[tenant] += 1

    def give_back(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if self._held[tenant] <= 0:
            del self._held[tenant]

    def held(self) -> dict[str, int]:
        """Kernels by tenant."""
        return dict(self._held)
