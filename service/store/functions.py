"""What a migration does in Redis: functions that look and write in one go.

A `live` key must be `raw` to the byte, a `lease` hold `token`: so who lost the lease changes nothing.
"""

from service.errors import LayoutError, StoreFullError
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
TAKE = "semcached_take_1"
"""lease; token, ms: takes it, if nobody has it. 1, or 0."""
SWAP = "semcached_swap_1"
"""key; value, what is there (not given: nothing): sets it. 1, or 0: something else is there."""
BEAT = "semcached_beat_1"
"""hash; field, value: sets it, in a full Redis as well."""

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
local function take(keys, args)
  return redis.call('SET', keys[1], args[1], 'NX', 'PX', args[2]) and 1 or 0
end
local function swap(keys, args)
  local there = redis.call('GET', keys[1])
  if there ~= args[1] and there ~= (args[2] or false) then
    return 0
  end
  redis.call('SET', keys[1], args[1])
  return 1
end
local function beat(keys, args)
  return redis.call('HSET', keys[1], args[1], args[2])
end
redis.register_function('{COPY}', copy)
redis.register_function{{function_name='{SWEEP}', callback=sweep, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{FORGET}', callback=forget, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{SETTLE}', callback=settle, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{RENEW}', callback=renew, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{TAKE}', callback=take, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{SWAP}', callback=swap, flags={{'allow-oom'}}}}
redis.register_function{{function_name='{BEAT}', callback=beat, flags={{'allow-oom'}}}}
"""


async def load(redis: RedisClient) -> None:
    """Load them; a full Redis has them from when the migration was begun.

    Raises:
        LayoutError: this user may not.
        StoreUnavailableError: Redis does not answer.
    """
    try:
        await redis.call("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    except RedisRefusedError as error:
        raise LayoutError(
            f"migrating needs functions in Redis: run it as a user who may load them ({error})"
        ) from None
    except StoreFullError:
        (reply,) = await redis.run([("FCALL", BEAT, 0)])  # without a key, which it refuses
        if "not found" in str(reply).lower():
            raise
