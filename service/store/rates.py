"""The rate limit of a key: GCRA (ITU-T I.371), one function in Redis, so that all workers count together."""

import contextlib
import logging
import time

from service.cache.ports import Budget
from service.errors import LayoutError, StoreUnavailableError
from service.settings import MIN_RATE
from service.store.client import RedisClient, RedisRefusedError
from service.store.keys import Keys

log = logging.getLogger(__name__)

SHARE = 0.15
"""Of a request's time for Redis: how long it waits to be counted. Then it is let in."""

FUNCTION = "semcached_admit_1"
RELOAD_S = 10.0
# One key: the theoretical arrival time in µs since 1970, which doubles hold exactly until the year 2255. One
# further ahead than a burst reaches is no time of ours: the clock went back. A full Redis counts, too.
LIBRARY = f"""#!lua name=semcached_1
local function admit(keys, args)
  local interval, burst = tonumber(args[1]), tonumber(args[2])
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local arrival = tonumber(redis.call('GET', keys[1]) or 0) or 0
  if not (arrival >= now and arrival <= now + burst * interval) then
    arrival = now
  end
  local wait = arrival + interval - burst * interval - now
  if wait > 0 then
    return math.ceil(wait)
  end
  local due = arrival + interval
  redis.call('SET', keys[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
  return 0
end
redis.register_function{{function_name='{FUNCTION}', callback=admit, flags={{'allow-oom'}}}}
"""


class Rates:
    """Counts requests. Lets everybody in while Redis is away."""

    def __init__(self, redis: RedisClient, keys: Keys, redis_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._patience_s = SHARE * redis_s
        self._logged: str | None = None
        self._reloaded_at = -RELOAD_S

    async def wait_s(self, key: str, rate: float) -> float:
        """How long this key has to wait, s; 0: it is let in, and counted.

        A second's worth of requests may come at once.
        """
        interval_us, burst = round(1e6 / max(rate, MIN_RATE)), max(1, round(rate))
        command = ("FCALL", FUNCTION, 1, self._keys.rate(key), interval_us, burst)
        try:
            (reply,) = await self._redis.run([command], Budget(self._patience_s))
        except StoreUnavailableError:
            return 0.0
        if isinstance(reply, Exception):
            await self._not_in_force(str(reply))
            return 0.0
        self._logged = None
        return int(reply) / 1e6

    async def _not_in_force(self, why: str) -> None:
        """Say so, once; where the function is gone, load it again."""
        if why != self._logged:
            log.error(
                "the rate limit is not in force: %s; `semcached migrate up` as a user who may load functions",
                why,
            )
            self._logged = why
        if "not found" in why and time.monotonic() - self._reloaded_at > RELOAD_S:
            self._reloaded_at = time.monotonic()
            with contextlib.suppress(StoreUnavailableError):
                await self.prepare(needed=False)

    async def prepare(self, *, needed: bool) -> bool:
        """Load the function where it isn't; whether that was done.

        Raises:
            LayoutError: it is needed, and this user may not load it.
            StoreUnavailableError: Redis does not answer.
        """
        try:
            await self._redis.call("FUNCTION", "LOAD", LIBRARY)
        except RedisRefusedError as error:
            if "already exists" in str(error) or not needed or await self.is_loaded():
                return False
            raise LayoutError(
                f"SEMCACHED_RATE_LIMIT needs a function in Redis: `semcached migrate up` as a user who may "
                f"load it ({error})"
            ) from None
        return True

    async def is_loaded(self) -> bool:
        """Whether Redis knows the function. It is called without a key, which it refuses."""
        (reply,) = await self._redis.run([("FCALL", FUNCTION, 0)])
        return "not found" not in str(reply)
