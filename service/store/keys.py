"""Key layout. `{partition}` is a cluster hash tag: one tenant's keys lie on one slot."""

from dataclasses import dataclass

from service.cache.digests import DIGEST_HEX
from service.model import Generation


@dataclass(frozen=True)
class Keys:
    """Names of keys and indexes under one prefix."""

    prefix: str

    def record(self, partition: int, entry_id: str) -> str:
        """A string: version, MAC, body."""
        return f"{self.prefix}:{{{partition}}}:responses:record:{entry_id}"

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
        return f"{self.prefix}:{{{partition}}}:responses:index:{generation.index}"

    def policies(self, partition: int) -> str:
        """A hash: the policies of the partition's tenants."""
        return f"{self.prefix}:{{{partition}}}:policies"

    def policies_version(self, partition: int) -> str:
        """A string that changes whenever one of them does."""
        return f"{self.prefix}:{{{partition}}}:policies:version"

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
