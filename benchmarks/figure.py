"""One measured figure, and what every benchmark module offers: `IDS` and `run(ids) -> list[Figure]`."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """A value beside its peer's (or floor's), both measured in the same run. `peer` is None where there is none."""

    id: str
    value: float
    unit: str
    peer: float | None
    peer_name: str
    command: str

    @property
    def ratio(self) -> float | None:
        return self.value / self.peer if self.peer else None

    def as_json(self) -> dict[str, object]:
        return {
            **asdict(self),
            "value": round(self.value, 4),
            "peer": None if self.peer is None else round(self.peer, 4),
        }


def command(id: str) -> str:
    return f"make bench ONLY={id}"


def quantile(values: list[float], q: float) -> float:
    """The nearest-rank quantile of `values`, 0 < q <= 1."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(q * len(ordered)) - 1))]
