"""Counts what was asked, answered, saved and spent, by tenant and agent_type.

Dict increments and nothing else, on the event loop: a hit pays some microseconds. `store/stats.py` takes
what has gathered here to Redis.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from service.cache.decisions import Decisions
from service.cache.digests import TenantKeys
from service.cache.histogram import LAST, bucket_of
from service.cache.ports import Work
from service.cache.prices import Prices
from service.cache.question import Question
from service.model import Hit, Miss, Record, Refused, Stored, Tenant, Usage

Keyspace = Literal["responses", "tools", "embeddings"]
Outcome = Literal["hit", "miss", "stored", "refused", "failed"]

Name = tuple[Tenant, str | None]
"""Tenant and agent_type; None: of no agent_type, or of one too many."""

Field = tuple[str, ...]
"""What is counted, in our words:

(keyspace, outcome, tier, reason or rule) · (keyspace, "rule", a miss's) · (keyspace, "ms", what, bucket)
· ("stage", name, bucket) · ("tokens", "input" | "output" | "embedded" | "provider_cached")
· ("nano_usd", "saved" | "spent" | "provider_saved")
· ("unpriced", "hits" | "tokens")
· ("shadow", "hits") · ("nano_usd", "shadow"): what would have been served
· ("strata", day since 1970 or "all", stratum): hits whose decision is kept; days long ago are removed
"""

Cell = defaultdict[Field, int]

MAX_CELLS = 10_000
"""Agent_types that wait at a time; those beyond are counted together, per tenant."""
LONGEST_WORD = 64
DAY_MS = 86_400_000
ALL_DAYS = "all"
BUCKETS = [str(bucket) for bucket in range(LAST + 1)]


class Accounting:
    """What was counted since the last `drain`."""

    def __init__(self, prices: Prices, decisions: Decisions | None = None) -> None:
        self.prices = prices
        self.decisions = decisions or Decisions()
        self._cells: dict[Name, Cell] = {}

    def count(
        self,
        keys: TenantKeys,
        agent_type: str | None,
        keyspace: Keyspace,
        outcome: Outcome,
        detail: str = "",
        *,
        rule: str | None = None,
        latency_ms: float | None = None,
        times: int = 1,
    ) -> None:
        """One request's, or one item's, outcome in a keyspace.

        Args:
            keys: the tenant's.
            agent_type: whose; None: of none.
            keyspace: where.
            outcome: what became of it.
            detail: of a hit its tier or kind, of a miss its reason, of a refused store its rule.
            rule: which guard or policy made it miss.
            latency_ms: how long it took.
            times: how many that are alike.
        """
        if not times:
            return
        cell = self._cell(keys, agent_type)
        cell[keyspace, outcome, detail[:LONGEST_WORD]] += times
        if rule:
            cell[keyspace, "rule", rule[:LONGEST_WORD]] += 1
        if latency_ms is not None:
            what = f"hit_{detail}" if outcome == "hit" else outcome
            cell[keyspace, "ms", what, BUCKETS[bucket_of(latency_ms)]] += 1

    def looked_up(
        self, keys: TenantKeys, questions: Sequence[Question], answers: Sequence[Hit | Miss], work: Work
    ) -> None:
        """A batch of lookups; its stages and its embedding, which it has once, go to its first agent_type."""
        for question, answer in zip(questions, answers, strict=True):
            agent_type = question.query.agent_type
            noted = self.decisions.note(keys, question, answer)
            if noted is not None and noted.is_hit:
                cell, place = self._cell(keys, agent_type), str(noted.stratum)
                cell["strata", _day(answer.lookup_id), place] += 1
                cell["strata", ALL_DAYS, place] += 1
            if question.shadowed is not None:
                self._shadowed(self._cell(keys, agent_type), question.shadowed[2])
            if isinstance(answer, Miss):
                rule = answer.rule if isinstance(answer.rule, str) else None
                reason, latency_ms = answer.reason.value, answer.latency_ms - work.waited_ms
                self.count(keys, agent_type, "responses", "miss", reason, rule=rule, latency_ms=latency_ms)
                continue
            tier = answer.tier.value
            self.count(
                keys, agent_type, "responses", "hit", tier, latency_ms=answer.latency_ms - work.waited_ms
            )
            if question.served is not None:
                record = question.served[2]
                self._saved(self._cell(keys, agent_type), record.usage, record.model)
        if questions:
            cell = self._cell(keys, questions[0].query.agent_type)
            for stage, ms in work.stages_ms.items():
                cell["stage", stage, BUCKETS[bucket_of(ms)]] += 1
            self._spent(cell, work)

    def stored(self, keys: TenantKeys, agent_type: str, answer: Stored | Refused | Exception) -> None:
        """A store."""
        if isinstance(answer, Refused):
            self.count(keys, agent_type, "responses", "refused", answer.reason)
        else:
            self.count(keys, agent_type, "responses", "stored" if isinstance(answer, Stored) else "failed")

    def shared(
        self, keys: TenantKeys, agent_type: str | None, usage: Usage | None, model: str | None
    ) -> None:
        """A miss that was answered all the same, along with another's call: a hit of the tier `memory`."""
        self.count(keys, agent_type, "responses", "hit", "memory")
        self._saved(self._cell(keys, agent_type), usage, model)

    def cached_upstream(
        self, keys: TenantKeys, agent_type: str | None, tokens: int, nano_usd: int | None
    ) -> None:
        """What a provider read from its prompt cache, and took less for that; None: nobody knows."""
        cell = self._cell(keys, agent_type)
        cell["tokens", "provider_cached"] += tokens
        cell["nano_usd", "provider_saved"] += nano_usd or 0

    def spent(self, keys: TenantKeys, agent_type: str | None, work: Work) -> None:
        """What an embeddings API was paid for."""
        self._spent(self._cell(keys, agent_type), work)

    def drain(self) -> dict[Name, Cell]:
        """What was counted since the last time; it is the caller's now."""
        cells, self._cells = self._cells, {}
        return cells

    def _cell(self, keys: TenantKeys, agent_type: str | None) -> Cell:
        cell = self._cells.get((keys.tenant, agent_type))
        if cell is None:
            name = (keys.tenant, agent_type if len(self._cells) < MAX_CELLS else None)
            cell = self._cells.setdefault(name, defaultdict(int))
        return cell

    def _shadowed(self, cell: Cell, record: Record) -> None:
        """What would have been served."""
        nano = None if record.usage is None else self.prices.saved(record.usage, record.model)
        cell["shadow", "hits"] += 1
        cell["nano_usd", "shadow"] += nano or 0

    def _saved(self, cell: Cell, usage: Usage | None, model: str | None) -> None:
        """What a hit's answer cost when it was made."""
        nano = None if usage is None else self.prices.saved(usage, model)
        if nano is None:
            cell["unpriced", "hits"] += 1
        else:
            cell["nano_usd", "saved"] += nano
        if usage is not None:
            cell["tokens", "input"] += usage.input_tokens or 0
            cell["tokens", "output"] += usage.output_tokens or 0

    def _spent(self, cell: Cell, work: Work) -> None:
        if not work.tokens:
            return
        cell["tokens", "embedded"] += work.tokens
        nano = self.prices.spent(work.model, work.tokens)
        if nano is None:
            cell["unpriced", "tokens"] += work.tokens
        else:
            cell["nano_usd", "spent"] += nano


@lru_cache(maxsize=8)
def _days(since: str) -> str:
    return str(int(since, 16) * 2**20 // DAY_MS)


def _day(lookup_id: str) -> str:
    """When it was, in days since 1970, to a quarter of an hour: cheaply."""
    return _days(lookup_id[12:19])
