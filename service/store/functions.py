"""What a migration does in Redis: functions that look and write in one go.

A `live` key must be `raw` to the byte, a `lease` hold `token`: so who lost the lease changes nothing.
"""

from service.errors import LayoutError
from service.store.client import RedisClient, RedisRefusedError

COPY = "semcached_copy_1"
"""live, source, target, pending; raw, stored_at, id, 1 with a vector or 0, field, value, …: writes the
document `target` (perhaps the same) with the fields and the end of `source`, unless that isn't the one
stored at `stored_at` ("gone") or `target` is that already, or newer ("there"). "copied"; "moved": `live` is
another."""
SWEEP = "semcached_sweep_1"
"""live, source, target; raw: removes a document whose source is gone. How many, or "moved"."""
FORGET = "semcached_forget_1"
"""live, document, …; raw: removes documents. How many, or "moved"."""
SETTLE = "semcached_settle_1"
"""lease, key; token, value: sets the key. 1, or 0."""
RENEW = "semcached_renew_1"
"""lease; token, ms: lets it go on. 1, or 0."""

LIBRARY = f"""#!lua name=semcached_migrations_1
local function copy(keys, args)
  local live, source, target, pending = keys[1], keys[2], keys[3], keys[4]
  if redis.call('GET', live) ~= args[1] then
    return 'moved'
  end
  if redis.call('HGET', source, 'stored_at') ~= args[2] then
    return 'gone'
  end
  local there = redis.call('HMGET', target, 'stored_at', 'vector')
  if there[1] and tonumber(there[1]) > tonumber(args[2]) then
    return 'there'
  end
  if there[1] == args[2] and (there[2] or args[4] == '0') then
    return 'there'
  end
  local ends = redis.call('PEXPIRETIME', source)
  redis.call('DEL', target)
  redis.call('HSET', target, unpack(args, 5))
  if ends > 0 then
    redis.call('PEXPIREAT', target, ends)
  end
  if args[4] == '1' then
    redis.call('ZREM', pending, args[3])
  end
  return 'copied'
end
local function sweep(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 'moved'
  end
  if redis.call('EXISTS', keys[2]) == 1 then
    return 0
  end
  return redis.call('UNLINK', keys[3])
end
local function forget(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 'moved'
  end
  return redis.call('UNLINK', unpack(keys, 2))
end
local function settle(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  redis.call('SET', keys[2], args[2])
  return 1
end
local function renew(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  return redis.call('PEXPIRE', keys[1], args[2])
end
redis.register_function('{COPY}', copy)
redis.register_function{{function_name='{SWEEP}', callback=sweep, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{FORGET}', callback=forget, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{SETTLE}', callback=settle, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{RENEW}', callback=renew, flags={{'allow-oom'}}}}
"""


async def load(redis: RedisClient) -> None:
    """Load them where they aren't.

    Raises:
        LayoutError: this user may not.
        StoreUnavailableError: Redis does not answer.
    """
    try:
        await redis.call("FUNCTION", "LOAD", LIBRARY)
    except RedisRefusedError as error:
        if "already exists" not in str(error):
            raise LayoutError(
                f"migrating needs functions in Redis: `semcached migrate up` as a user who may load them "
                f"({error})"
            ) from None
