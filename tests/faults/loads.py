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
