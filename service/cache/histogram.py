"""Times in buckets that add up over processes; percentiles from them."""

import math
from collections.abc import Mapping

LEAST_MS = 0.01
RATIO = 1.1
"""Of a bucket's end to its begin. Its middle is told, which is within 5 % of whatever lies in it."""
LAST = 169
"""What takes longer than 100 s is counted there, what takes less than `LEAST_MS` in bucket 0."""
_LOG_RATIO = math.log(RATIO)


def bucket_of(ms: float) -> int:
    """The number of the bucket, 0 to `LAST`."""
    if ms < LEAST_MS:
        return 0
    return min(LAST, int(math.log(ms / LEAST_MS) / _LOG_RATIO))


def middle_ms(bucket: int) -> float:
    """The geometric middle of a bucket."""
    return LEAST_MS * math.exp((bucket + 0.5) * _LOG_RATIO)


def percentile(buckets: Mapping[int, int], share: float) -> float | None:
    """The time, ms, that `share` (0 to 1) of what was counted doesn't exceed; None: nothing was."""
    rank = math.ceil(share * sum(buckets.values()))
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank and buckets[bucket]:
            return middle_ms(bucket)
    return None
