"""Agents whose fresh answers are compared with those that were there; for `test_learning_kills`."""

import time
from typing import Any, NamedTuple

from tests.faults.fleet import Fleet, Reply
from tests.faults.loads import PAUSE_S, Asking, beside, words


class Fresh(NamedTuple):
    """An answer to a lookup that might have been answered."""

    fields: dict[str, Any]  # of the store
    entry_id: str  # whose answer it is compared with
    before: str  # that answer
    replies: list[Reply]  # to the store, and to its repetitions that can be compared as well

    @property
    def is_same(self) -> bool:
        return bool(self.fields["response"] == self.before)


class Comparing(Asking):
    """Answers afresh, says so, and at times says so again."""

    bases = 6
    verbatim = 0.0
    """Share of questions in an entry's own words."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(fleet, seed)
        self.fresh: dict[str, Fresh] = {}
        self.ids: list[str] = []
        self.answers: dict[str, str] = {}  # by entry

    def keep(self, **fields: Any) -> Reply:
        reply = self.store(**fields)
        self.answers[reply.said["entry_id"]] = fields["response"]
        return reply

    def prepare(self) -> None:
        for n in range(self.bases):
            self.ids.append(self.keep(**self.entry(n), response="the answer").said["entry_id"])

    def step(self) -> None:
        n = self.chance.randrange(0, self.bases, 2)  # whose answers stay; those between are changed
        if self.chance.random() < self.verbatim:
            asked, nearest = self.entry(n + 1), self.ids[n + 1]
        else:
            asked, nearest = (
                {"prompt": words(1000 + self.steps), "embedding": beside(n, 0.95, self.steps)},
                "",
            )
        found = self.look(**asked).said
        if found["outcome"] == "miss":
            self.answer(asked | {"lookup_id": found["lookup_id"]}, nearest or found["nearest"]["entry_id"])
        if self.fresh and self.chance.random() < 0.2:
            self.repeat(self.fresh[self.chance.choice(list(self.fresh)[-20:])])
        time.sleep(PAUSE_S)

    def answer(self, asked: dict[str, Any], nearest: str) -> None:
        """Each fourth says something else."""
        before = self.answers[nearest]
        response = before if self.chance.random() < 0.75 else f"another answer, {words(self.steps)}"
        fields = asked | {"response": response}
        self.fresh[asked["lookup_id"]] = Fresh(fields, nearest, before, [self.keep(**fields)])

    def repeat(self, one: Fresh) -> None:
        """As an agent does that doesn't know whether it was heard."""
        is_there = self.answers[one.entry_id] == one.before
        reply = self.keep(**one.fields)
        if is_there:
            one.replies.append(reply)

    def had(self, lookup_id: str) -> float:
        """How long there was to write the decision, and to compare the answer or its repetition, s."""
        lookup = self.answered[lookup_id]
        kept = max(one.life.since(one.at) for one in self.fresh[lookup_id].replies)
        return min(lookup.life.since(lookup.at), kept)


class Exploring(Comparing):
    agent_type = "exploring"

    def prepare(self) -> None:
        self.policy(mode="verified", max_error_rate=0.05)
        super().prepare()


class Shadowed(Comparing):
    agent_type = "shadowed"
    verbatim = 0.3

    def prepare(self) -> None:
        super().prepare()
        self.policy(shadow=True)
