"""/livez, /readyz, /health, /metrics: open to everybody, without keys."""

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.services import Services
from service.api.wire import encoded


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
    """Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
