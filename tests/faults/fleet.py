"""Two services on one Redis, of which now and then one, or both, get a kill -9 and are started again."""

import math
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bench.processes import Served

SECOND = 1.0
"""What a kill -9 may cost."""
SECRET = "a secret of the killed"
PLACES = 2


class Life:
    """A process, from its start to its kill."""

    def __init__(self) -> None:
        self.ended: float | None = None

    def since(self, at: float) -> float:
        """How long it lived on, s."""
        return math.inf if self.ended is None else self.ended - at

    def outlived(self, at: float) -> bool:
        """Whether it had a second for what it answered then."""
        return self.since(at) > SECOND


class Reply(NamedTuple):
    """An answer."""

    status: int
    said: Any
    life: Life  # that gave it
    at: float  # when it came, by `time.monotonic`


class Fleet:
    """The services. Whoever asks goes on until one answers."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder, self._url = folder, redis_url
        self._served = [self._start(place) for place in range(PLACES)]
        self._lives: list[Life | None] = [None] * PLACES
        for place in range(PLACES):
            self._live(place)
        self.ports = [one.port for one in self._served]

    def _start(self, place: int, port: int = 0) -> Served:
        settings = {"redis_url": self._url, "secret": SECRET, "verifier": "off", "embedder_threads": "1"}
        return Served(self._folder / str(place), port=str(port), redis_timeout_s="5", **settings)

    def _live(self, place: int) -> None:
        self._served[place].wait()
        self._lives[place] = Life()

    def kill(self, *places: int) -> None:
        """And start them again."""
        for place in places:
            life, self._lives[place] = self._lives[place], None
            if life is not None:
                life.ended = time.monotonic()
            self._served[place].process.send_signal(signal.SIGKILL)
        for place in places:
            self._served[place].end()
            self._served[place] = self._start(place, self.ports[place])
        for place in places:
            self._live(place)

    def ask(
        self, http: httpx.Client, chance: random.Random, method: str, path: str, body: Any = None
    ) -> Reply:
        """Of any of them; where the connection breaks, or nobody is there, again."""
        while True:
            place = chance.randrange(PLACES)
            life = self._lives[place]
            if life is None:
                time.sleep(0.01)
                continue
            try:
                answer = http.request(method, f"http://127.0.0.1:{self.ports[place]}{path}", json=body)
            except httpx.TransportError:
                continue
            if answer.status_code < 500:
                return Reply(answer.status_code, answer.json(), life, time.monotonic())

    def told(self, place: int, path: str) -> Any:
        """What one of them says."""
        answer = httpx.get(f"http://127.0.0.1:{self.ports[place]}{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self) -> None:
        for one in self._served:
            one.end()


class Load(threading.Thread):
    """One agent, which does something again and again."""

    agent_type = "none"

    def __init__(self, fleet: Fleet, seed: int) -> None:
        super().__init__(daemon=True)
        self.fleet = fleet
        self.chance = random.Random(f"{self.agent_type} {seed}")  # noqa: S311 - no secret
        self.http = httpx.Client(timeout=30)
        self.steps = 0
        self._stopped = threading.Event()
        self._failed: Exception | None = None

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        return self.fleet.ask(self.http, self.chance, method, path, body)

    def policy(self, **fields: Any) -> None:
        """Vectors stand for the questions' meaning."""
        plain = {"guards": {"verifier": False}, "threshold": 0.6, "comparison": "equal"}
        assert self.ask("PUT", f"/v1/policies?agent_type={self.agent_type}", plain | fields).status == 200

    def prepare(self) -> None:
        """Before the first step."""

    def step(self) -> None:
        """What it does."""
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self.step()
                self.steps += 1
        except Exception as error:  # noqa: BLE001 - told by `stop`
            self._failed = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)
        self.http.close()
        assert not self.is_alive()
        if self._failed is not None:
            raise self._failed
