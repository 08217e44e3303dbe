"""Counters in the text format Prometheus reads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self._requests[route, status] += 1
            self._buckets[route][sum(seconds > bound for bound in _BOUNDS)] += 1
            self._seconds[route] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All counters and the given gauges as exposition text, version 0.0.4."""
        lines = ["# TYPE visavis_requests_total counter"]
        with self._lock:
            for (route, status), count in sorted(self._requests.items()):
                lines.append(f'visavis_requests_total{{route="{route}",status="{status}"}} {count}')
            lines.append("# TYPE visavis_request_seconds histogram")
            for route, counts in sorted(self._buckets.items()):
                total = 0
                for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
                    total += count
                    lines.append(f'visavis_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
                lines.append(f'visavis_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
                lines.append(f'visavis_request_seconds_count{{route="{route}"}} {total}')
        for name, value in gauges.items():
            lines += [f"# TYPE visavis_{name} gauge", f"visavis_{name} {value:g}"]
        return "\n".join(lines) + "\n"
