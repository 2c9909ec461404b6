"""What can go wrong, in one tree.

SemcachedError
├── InvalidInputError        400  a field is wrong; names it
├── UnauthenticatedError     401
├── ForbiddenError           403
├── NotFoundError            404
├── ClientLeftError          499  nobody waits for the answer any more
├── TooManyRequestsError     429  over a limit of the key's; try again later
├── StoreUnavailableError    503  Redis is away, slow or loading
│   └── StoreFullError       507  Redis has no room: lookups go on
├── EmbedderError            502  the embedder is away or answers rubbish
├── VerifierError            502  the verifier is busy or failed; a lookup misses
├── RewriterError            502  the rewriter is away or answers rubbish; a lookup misses
├── JudgeError               502  the judge of two answers is away or answers rubbish; nobody knows
├── UpstreamError            502  the provider that a request was passed on to can't be reached, or broke off
│   └── UpstreamTimeoutError 504
└── StartupError             the process refuses to start; exit code 1
    ├── SettingsError        exit code 2
    ├── SecretMismatchError
    └── LayoutError          what lies in Redis doesn't fit this program

Three layers refine it for themselves: `store/client.py` (RedisRefusedError, IndexMissingError, both 503),
`providers/gate.py` (ProviderError, 502: of an embedder, a rewriter or a judge) and `migrate/target.py`
(BusyError, MigrationError: StartupErrors).

`service/api/problems.py` is the one handler that turns these into problem objects (RFC 9457).
"""


class SemcachedError(Exception):
    """Root of what this program raises on purpose."""

    status = 500
    title = "Internal error"


class InvalidInputError(SemcachedError):
    """A field of the request is wrong. `field` is its path, as in `messages[0].role`."""

    status = 400
    title = "Invalid input"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class UnauthenticatedError(SemcachedError):
    """No key, or none that we know."""

    status = 401
    title = "Unauthenticated"


class ForbiddenError(SemcachedError):
    """The key's role doesn't reach."""

    status = 403
    title = "Forbidden"


class NotFoundError(SemcachedError):
    """Nothing of that name in this tenant."""

    status = 404
    title = "Not found"


class TooManyRequestsError(SemcachedError):
    """Over a limit. `retry_after_s` is when to come again, seconds."""

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientLeftError(SemcachedError):
    """The client went away; nobody reads this."""

    status = 499
    title = "Client left"


class StoreUnavailableError(SemcachedError):
    """Redis is away, slow, loading or not set up yet."""

    status = 503
    title = "Store unavailable"


class StoreFullError(StoreUnavailableError):
    """Redis refuses writes for want of memory or disk; reads go on."""

    status = 507
    title = "Store full"


class EmbedderError(SemcachedError):
    """The embedder is away, slow, or answered something that is no embedding."""

    status = 502
    title = "Embedder failed"


class VerifierError(SemcachedError):
    """The verifier is busy, slow, or failed."""

    status = 502
    title = "Verifier failed"


class RewriterError(SemcachedError):
    """The rewriter is away, slow, or answered nothing usable."""

    status = 502
    title = "Rewriter failed"


class JudgeError(SemcachedError):
    """The judge is away, slow, or answered no verdict."""

    status = 502
    title = "Judge failed"


class JudgeAwayError(JudgeError):
    """The judge isn't asked now: it is left alone for a while."""


class UpstreamError(SemcachedError):
    """The provider can't be reached, or broke its answer off."""

    status = 502
    title = "Upstream failed"


class UpstreamTimeoutError(UpstreamError):
    """Nothing came from the provider in time."""

    status = 504
    title = "Upstream timed out"


class StartupError(SemcachedError):
    """The process can't start."""


class SettingsError(StartupError):
    """A setting is wrong; names the variable."""


class SecretMismatchError(StartupError):
    """Redis was written under another secret."""


class LayoutError(StartupError):
    """What lies in Redis doesn't fit this program, its schema or its embedder."""
