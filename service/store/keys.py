"""Key layout. `{partition}` is a cluster hash tag: one tenant's keys lie on one slot."""

from dataclasses import dataclass

from service.cache.digests import DIGEST_HEX
from service.model import Generation

TOOL_INDEX = "1"
"""Which index over tool results serves; a migration to another would change it."""


@dataclass(frozen=True)
class Keys:
    """Names of keys and indexes under one prefix."""

    prefix: str

    def record(self, partition: int, entry_id: str) -> str:
        """A string: version, MAC, body."""
        return f"{self.prefix}:{{{partition}}}:responses:record:{entry_id}"

    def quarantine(self, partition: int, entry_id: str) -> str:
        """A hash: by which verdicts (lookup id and source) the entry may answer its own words only."""
        return f"{self.prefix}:{{{partition}}}:responses:quarantine:{entry_id}"

    def quarantined(self, partition: int, tenant: str) -> str:
        """A sorted set: ids of a tenant's (by its digest) entries that have such a hash, by its end."""
        return f"{self.prefix}:{{{partition}}}:responses:quarantined:{tenant}"

    def outcomes(self, partition: int, tenant: str, agent_type: str, model: int) -> str:
        """A sorted set: verdicts on a tenant's agent_type's answers (by their digests), by time."""
        return f"{self.prefix}:{{{partition}}}:outcomes:{tenant}:{agent_type}:{model:08x}"

    def threshold(self, partition: int, tenant: str, agent_type: str, model: int) -> str:
        """A hash: the threshold that follows the verdicts, and its moves, sealed, under a rising number."""
        return f"{self.prefix}:{{{partition}}}:threshold:{tenant}:{agent_type}:{model:08x}"

    def reviews(self, partition: int, tenant: str) -> str:
        """A sorted set: hits that wait for a verdict (`reviews.Name`), the least certain first."""
        return f"{self.prefix}:{{{partition}}}:reviews:pending:{tenant}"

    def reviews_list(self, partition: int, tenant: str) -> str:
        """A sorted set: all hits with an item, judged ones as well, by the item's end."""
        return f"{self.prefix}:{{{partition}}}:reviews:list:{tenant}"

    def review(self, partition: int, tenant: str, lookup_id: str) -> str:
        """A string: a hit to be judged, with both questions and the answer, sealed."""
        return f"{self.prefix}:{{{partition}}}:reviews:item:{tenant}:{lookup_id}"

    def pointer(self, partition: int, entry_id: str) -> str:
        """A string: version, MAC, body; the id is that of a question that has no entry."""
        return f"{self.prefix}:{{{partition}}}:responses:pointer:{entry_id}"

    def rewriting(self, partition: int, name: str) -> str:
        """A string: version, MAC, body; the name is a digest of a conversation."""
        return f"{self.prefix}:{{{partition}}}:rewritings:{name}"

    def asked(self, partition: int, entry_id: str) -> str:
        """A number: how often an entry was to be stored, where a policy counts."""
        return f"{self.prefix}:{{{partition}}}:asked:{entry_id}"

    def documents(self, partition: int, generation: Generation) -> str:
        """What the keys of a generation's index documents begin with."""
        return f"{self.prefix}:{{{partition}}}:responses:document:{generation.space}:"

    def document(self, partition: int, generation: Generation, entry_id: str) -> str:
        """A hash: tags, times, vector."""
        return self.documents(partition, generation) + entry_id

    def index(self, partition: int, generation: Generation) -> str:
        """The name of a RediSearch index; it shares the hash tag with what it indexes."""
        return self.indexes(partition) + generation.index

    def indexes(self, partition: int) -> str:
        """What the names of the generations' indexes begin with."""
        return f"{self.prefix}:{{{partition}}}:responses:index:"

    def live(self, partition: int) -> str:
        """A string: which generations are live, as JSON; none before the first migration to another."""
        return f"{self.prefix}:{{{partition}}}:responses:live"

    def pending(self, partition: int, generation: Generation) -> str:
        """A sorted set: ids of documents that still lack their vector, by when they were stored."""
        return f"{self.prefix}:{{{partition}}}:responses:pending:{generation.space}"

    def tool_record(self, partition: int, name: str) -> str:
        """A string: version, MAC, body; the name is a digest of a call."""
        return f"{self.prefix}:{{{partition}}}:tools:record:{name}"

    def tool_documents(self, partition: int) -> str:
        """What the keys of the index documents of tool results begin with."""
        return f"{self.prefix}:{{{partition}}}:tools:document:"

    def tool_document(self, partition: int, name: str) -> str:
        """A hash: tags, times."""
        return self.tool_documents(partition) + name

    def tool_index(self, partition: int) -> str:
        """The name of the RediSearch index over tool results."""
        return f"{self.prefix}:{{{partition}}}:tools:index:{TOOL_INDEX}"

    def embedding(self, partition: int, name: str) -> str:
        """A string: a sealed vector; the name is a digest of model and text."""
        return f"{self.prefix}:{{{partition}}}:embeddings:value:{name}"

    def embeddings(self, partition: int, tenant: str) -> str:
        """A sorted set: the names of a tenant's (by its digest) embeddings, by when they were stored."""
        return f"{self.prefix}:{{{partition}}}:embeddings:list:{tenant}"

    def lease(self, partition: int, name: str) -> str:
        """A string: whose turn it is to make the answer of that id."""
        return f"{self.prefix}:{{{partition}}}:leases:{name}"

    def invalidations_number(self, partition: int) -> str:
        """A string: the number of the partition's last invalidation."""
        return f"{self.prefix}:{{{partition}}}:invalidations:number"

    def invalidations(self, partition: int, tenant: str) -> str:
        """A sorted set: what a tenant (by its digest) invalidated lately, by number."""
        return f"{self.prefix}:{{{partition}}}:invalidations:log:{tenant}"

    def invalidation_rules(self, partition: int, tenant: str) -> str:
        """A hash: a tenant's (by its digest) rules for events, sealed, by digests of their names."""
        return f"{self.prefix}:{{{partition}}}:invalidations:rules:{tenant}"

    def used(self, partition: int, tenant: str, agent_type: str) -> str:
        """A sorted set: ids of entries by last use, of a tenant and agent_type (by their digests)."""
        return f"{self.prefix}:{{{partition}}}:used:{tenant}:{agent_type}"

    def policies(self, partition: int) -> str:
        """A hash: the policies of the partition's tenants."""
        return f"{self.prefix}:{{{partition}}}:policies"

    def policies_version(self, partition: int) -> str:
        """A string that changes whenever one of them does."""
        return f"{self.prefix}:{{{partition}}}:policies:version"

    def stats(self, partition: int, tenant: str, cell: str) -> str:
        """A sorted set: what was counted, by field; `cell` is an agent_type's digest, or `others`."""
        return f"{self.prefix}:{{{partition}}}:stats:{tenant}:{cell}"

    def stats_names(self, partition: int, tenant: str) -> str:
        """A hash: cell → since when it is counted, and its agent_type; sealed."""
        return f"{self.prefix}:{{{partition}}}:stats:names:{tenant}"

    def stats_staged(self, partition: int, name: str) -> str:
        """A sorted set: what is about to be added to a cell."""
        return f"{self.prefix}:{{{partition}}}:stats:staged:{name}"

    def decisions(self, partition: int, tenant: str, bucket: str) -> str:
        """A hash: what lookups of a tenant (by its digest) decided, sealed, by number of the flush."""
        return f"{self.prefix}:{{{partition}}}:decisions:{tenant}:{bucket}"

    def decisions_list(self, partition: int, tenant: str) -> str:
        """A sorted set: a tenant's buckets of decisions, by when they end."""
        return f"{self.prefix}:{{{partition}}}:decisions:list:{tenant}"

    def pending_comparisons(self, partition: int) -> str:
        """A sorted set: fresh answers to be compared, sealed, by when somebody was last at work on them."""
        return f"{self.prefix}:{{{partition}}}:comparisons"

    def rate(self, api_key: str) -> str:
        """When an API key's next request is due, by its id."""
        return f"{self.prefix}:{{rate:{api_key}}}"

    def meta(self, name: str) -> str:
        """Layout, generation, migrations' ledger and lease."""
        return f"{self.prefix}:{{meta}}:{name}"

    def trial(self, name: str) -> str:
        """A name under which nothing lies."""
        return f"{self.prefix}:{{trial}}:{name}"


def entry_id_of(document: bytes) -> str:
    """The id at the end of a document's key."""
    return document[-DIGEST_HEX:].decode("ascii", "replace")
