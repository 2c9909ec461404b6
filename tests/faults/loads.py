"""What agents do that something is learned from, and what they were told; for `test_learning_kills`."""

import base64
import math
import time
from typing import Any, NamedTuple

import numpy as np

from tests.faults.fleet import SECOND, Fleet, Life, Load, Reply
from tests.helpers import vector

LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
ENTRIES = 40
PAUSE_S = 0.02


def beside(seed: int, cosine: float, direction: int) -> str:
    """A vector at that cosine from `vector(seed)`, to some side."""
    base = np.frombuffer(base64.b64decode(vector(seed)), "<f4").astype(float)
    other = np.random.default_rng((seed, direction)).normal(size=base.size)
    other -= other @ base * base
    values = cosine * base + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def words(number: int) -> str:
    """A question of its own, without a number."""
    letters = list[str]()
    while number or not letters:
        number, rest = divmod(number, 26)
        letters.append(chr(97 + rest))
    return "question " + "".join(letters)


class Answered(NamedTuple):
    """A lookup."""

    lookup_id: str
    life: Life
    at: float

    @property
    def is_safe(self) -> bool:
        """Whether its decision must be kept."""
        return self.life.outlived(self.at)


class Asking(Load):
    """Looks up and stores."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(fleet, seed)
        self.answered: dict[str, Answered] = {}
        self.hits = 0

    def look(self, **fields: Any) -> Reply:
        reply = self.ask("POST", LOOKUP, {"agent_type": self.agent_type} | fields)
        assert reply.status == 200, reply.said
        assert reply.said.get("reason") != "degraded", reply.said
        name = reply.said["lookup_id"]
        self.answered[name] = Answered(name, reply.life, reply.at)
        self.hits += reply.said["outcome"] == "hit"
        return reply

    def store(self, **fields: Any) -> Reply:
        reply = self.ask("POST", STORE, {"agent_type": self.agent_type} | fields)
        assert reply.status == 201, reply.said
        return reply

    def entry(self, n: int) -> dict[str, Any]:
        return {"prompt": words(n), "embedding": vector(n)}

    def hit(self) -> Any:
        """An answer to one of the entries' own words, or to others; None: it has to be stored again."""
        n = self.chance.randrange(ENTRIES)
        asked = self.entry(n)
        if self.chance.random() < 0.5:
            asked = {"prompt": words(1000 + self.steps), "embedding": beside(n, 0.95, self.steps)}
        found = self.look(**asked).said
        if found["outcome"] == "miss":
            self.store(**self.entry(n), response=f"answer {self.steps}")
            return None
        return found


class Telling(Asking):
    """Says of hits at once whether they were right, and at times something else afterwards."""

    agent_type = "telling"

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(fleet, seed)
        self.told: dict[str, bool] = {}
        self.unknown: list[Answered] = []
        self.wrong: dict[str, float] = {}  # answers that must be gone, since when
        self.again: list[str] = []

    def step(self) -> None:
        found = self.hit()
        if found is not None:
            if time.monotonic() - self.wrong.get(found["response"], math.inf) > SECOND:
                self.again.append(found["response"])
            right = self.chance.random() < 0.9
            said = [right, not right] if self.chance.random() < 0.1 else [right]
            for correct in said:
                if self.tell(found["lookup_id"], correct=correct) and not correct:
                    self.wrong.setdefault(found["response"], time.monotonic())
        time.sleep(PAUSE_S)

    def tell(self, lookup_id: str, *, correct: bool) -> bool:
        """Whether it was taken."""
        reply = self.ask("POST", "/v1/feedback", {"lookup_id": lookup_id, "correct": correct})
        if reply.status == 200:
            self.told[lookup_id] = correct
        else:
            assert reply.status == 404, reply.said
            self.unknown.append(self.answered[lookup_id])
        return reply.status == 200


class Reviewed(Asking):
    """Gets hits, all of which are to be reviewed; a reviewer judges them."""

    agent_type = "reviewed"

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(fleet, seed)
        self.served: list[str] = []
        self.judged: dict[str, bool] = {}

    def prepare(self) -> None:
        self.policy(review_sample_rate=1)

    def step(self) -> None:
        found = self.hit()
        if found is not None:
            self.served.append(found["lookup_id"])
        if self.steps % 20 == 0:
            self.review()
        time.sleep(PAUSE_S)

    def review(self) -> int:
        """The first of those that wait; how many there were."""
        queue = self.ask("GET", f"/v1/reviews?agent_type={self.agent_type}&limit=100").said["items"]
        for one in queue:
            right = self.chance.random() < 0.9
            reply = self.ask("POST", f"/v1/reviews/{one['id']}", {"verdict": "correct" if right else "wrong"})
            assert reply.status == 200, reply.said
            self.judged[one["id"]] = right
        return len(queue)


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


class Adapting(Asking):
    """Gets hits of all similarities, half of them wrong: the threshold goes up to its bound."""

    agent_type = "adapting"

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(fleet, seed)
        self.told: dict[str, bool] = {}
        self.unknown: list[Answered] = []
        self.moves: list[Any] = []
        self.changed: list[tuple[Any, Any]] = []

    def prepare(self) -> None:
        self.policy(mode="adaptive", threshold=0.65, threshold_bounds=[0.6, 0.95])

    def step(self) -> None:
        n = self.steps
        self.store(**self.entry(n), response="an answer")
        asked = {"prompt": words(10_000 + n), "embedding": beside(n, self.chance.uniform(0.66, 0.99), n)}
        found = self.look(**asked, tiers=["semantic"]).said
        if found["outcome"] == "hit":
            self.tell(found["lookup_id"], correct=self.chance.random() < 0.5)
        if n % 10 == 0:
            self.follow()
        time.sleep(PAUSE_S)

    def tell(self, lookup_id: str, *, correct: bool) -> None:
        reply = self.ask("POST", "/v1/feedback", {"lookup_id": lookup_id, "correct": correct})
        if reply.status == 200:
            self.told[lookup_id] = correct
        else:
            self.unknown.append(self.answered[lookup_id])

    def follow(self) -> None:
        """What was moved stays as it was told, whoever tells."""
        moves = self.ask("GET", f"/v1/learning?agent_type={self.agent_type}").said["moves"]
        if moves[: len(self.moves)] != self.moves:
            self.changed.append((self.moves, moves))
        self.moves = moves
