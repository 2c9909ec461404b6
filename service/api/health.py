"""/livez, /readyz, /health, /metrics: open to everybody, without keys."""

import os
from pathlib import Path

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.api.services import Services
from service.api.wire import encoded
from service.telemetry import forget_the_dead


@get("/livez")
async def livez() -> Response[bytes]:
    """The process turns; says nothing about Redis."""
    return encoded({"status": "live"})


@get(["/readyz", "/health"])
async def readyz(services: NamedDependency[Services]) -> Response[bytes]:
    """Redis, the index and a warm embedder are usable; else 503 with the reason."""
    reason = await services.why_not_ready()
    if reason is None:
        return encoded({"status": "ready"})
    return encoded({"status": "not ready", "reason": reason}, status=503, headers={"Retry-After": "1"})


@get("/metrics")
async def metrics() -> Response[bytes]:
    """Prometheus; of all workers, where there are several."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # in prometheus_client
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
