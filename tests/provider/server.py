"""The provider: OpenAI's and Anthropic's API on one port, which answers as it is told and remembers all."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

import anyio

from tests.provider import chat, errors, messages, responses, wire, words
from tests.provider.counting import input_tokens
from tests.provider.rules import PromptCache, Rejected
from tests.provider.script import Api, Asked, Body, Error, Mode, Script, always
from tests.provider.wire import CutError, Reply, Request, as_event, as_json

Answering = Literal["chat", "responses", "messages"]
ANSWERING: tuple[Answering, ...] = get_args(Answering)
APIS: dict[tuple[str, str], Api] = {
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/responses"): "responses",
    ("POST", "/v1/responses/input_tokens"): "count",
    ("POST", "/v1/messages"): "messages",
    ("POST", "/v1/messages/count_tokens"): "count",
    ("GET", "/v1/models"): "models",
    ("GET", "/_stub/calls"): "control",
}
NEEDED = {"chat": ("model", "messages"), "responses": ("model", "input"), "count": ("model",)}
NEEDED |= {"messages": ("model", "messages", "max_tokens")}
ANSWER = {"chat": chat.answer, "responses": responses.answer, "messages": messages.answer}
PRICES = Path(__file__).parents[2] / "service" / "prices.json"


class _Connection(asyncio.StreamReaderProtocol):
    """One client; `gone` is set as soon as it left."""

    def __init__(self, provider: "Provider") -> None:
        self.gone = asyncio.Event()
        reader = asyncio.StreamReader(limit=2**20)
        super().__init__(reader, lambda _, writer: provider.accept(reader, writer, self.gone))

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        super().connection_lost(exc)


class Provider:
    """What a test sets, and what it sees.

    Args:
        clock: for `created`.
        prompts: the cache of prompts, which makes the usage; a fresh one if None.
        keys: account of each key; None: any key will do, and is an account.
        first_s: before the first token.
        token_s: per token of the answer.
        port: 0: any.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        prompts: PromptCache | None = None,
        keys: dict[str, str] | None = None,
        first_s: float = 0,
        token_s: float = 0,
        port: int = 0,
    ) -> None:
        self.mode: Mode = always(Script())
        self.requests: list[Asked] = []
        self.replies: list[bytes] = []  # bodies, as they were to go out
        self.inside = self.most_inside = self.finished = self.aborted = 0
        self.connections = 0
        self.keys = keys
        self.first_s, self.token_s = first_s, token_s
        self.port = port
        self._clock = clock
        self._prompts = prompts or PromptCache(clock)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, script: Script) -> None:
        """From now on, to all."""
        self.mode = always(script)

    @property
    def answered(self) -> list[Asked]:
        """The requests for an answer, without those that count tokens or list models."""
        return [one for one in self.requests if one.api in ANSWERING]

    @property
    def calls(self) -> int:
        """How many those are."""
        return len(self.answered)

    @property
    def root(self) -> str:
        """Anthropic's base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """OpenAI's base URL."""
        return f"{self.root}/v1"

    def counts(self) -> dict[str, int]:
        names = ("calls", "inside", "most_inside", "finished", "aborted")
        return {name: getattr(self, name) for name in names} | {"requests": len(self.requests)}

    async def start(self) -> None:
        """Listen, again on the port it had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """From now on, connections are refused; those that are open end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        """A connection; in a task of ours, since asyncio's own complains when it is cancelled."""
        task = asyncio.ensure_future(self._serve(reader, writer, gone))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event
    ) -> None:
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._one(await wire.read(reader), writer, gone):
                    pass
        finally:
            self.connections -= 1
            writer.close()

    async def _one(self, request: Request, writer: asyncio.StreamWriter, gone: asyncio.Event) -> bool:
        """One request; whether the connection is to be kept."""
        asked = self._asked(request)
        if asked.api == "control":
            return await wire.send(writer, Reply([as_json(self.counts())]), zips=False)
        self.requests.append(asked)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        reply = self._reply(asked)
        try:
            return await self._sent(asked, reply, writer, gone)
        except CutError:
            self.finished += 1
            if reply.fault.reset:
                writer.transport.abort()
            return False
        finally:
            self.inside -= 1

    async def _sent(
        self, asked: Asked, reply: Reply, writer: asyncio.StreamWriter, gone: asyncio.Event
    ) -> bool:
        """Say it, unless the client leaves."""
        zips = "gzip" in asked.headers.get("accept-encoding", "")
        saying = asyncio.ensure_future(wire.send(writer, reply, zips=zips))
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait([saying, leaving], return_when=asyncio.FIRST_COMPLETED)
            if saying.done() and not isinstance(saying.exception(), ConnectionError):
                self.finished += not isinstance(saying.exception(), CutError)
                return saying.result()
            self.aborted += 1
            return False
        finally:
            saying.cancel()
            leaving.cancel()

    def _asked(self, request: Request) -> Asked:
        credential = request.headers.get("x-api-key") or request.headers.get("authorization", "")
        credential = credential.removeprefix("Bearer ")
        try:
            body = json.loads(request.raw)
        except ValueError:
            body = None
        return Asked(
            number=len(self.requests),
            api=APIS.get((request.method, request.path), "none"),
            method=request.method,
            path=request.path,
            headers=request.headers,
            raw=request.raw,
            body=body,
            credential=credential,
            account=credential if self.keys is None else self.keys.get(credential, ""),
        )

    def _reply(self, asked: Asked) -> Reply:
        wrong = self._refusal(asked)
        script = Script(error=wrong) if wrong else self.mode(asked)
        request_id = words.fresh("req_")
        try:
            reply = self._failed(asked, script, request_id) or self._told(asked, script, request_id)
        except Rejected as rejected:
            reply = Reply([as_json(rejected.body)], rejected.status)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # of another shape than they know
            told = Error(400, f"The stub can't read it: {error!r}")
            reply = Reply([as_json(_error_body(asked, told, request_id))], told.status)
        reply.headers = self._headers(asked, request_id, streams=reply.streams) | reply.headers
        reply.headers |= script.headers
        reply.fault = script.fault
        self.replies.append(b"".join(reply.pieces))
        return reply

    def _refusal(self, asked: Asked) -> Error | None:
        """What speaks against the request, before any script."""
        if self.keys is not None and asked.credential not in self.keys:
            return Error(401, "Incorrect API key provided: sk-te****.")
        if asked.api == "none":
            return Error(404, f"Unknown request URL: {asked.method} {asked.path}.")
        if asked.api == "models":
            return None
        if not isinstance(asked.body, dict):
            return Error(400, "We could not parse the JSON body of your request.")
        missing = [name for name in NEEDED[asked.api] if name not in asked.body]
        return Error(400, f"Missing required parameter: '{missing[0]}'.") if missing else None

    @staticmethod
    def _failed(asked: Asked, script: Script, request_id: str) -> Reply | None:
        if script.error is None or script.break_at is not None:
            return None
        body = _error_body(asked, script.error, request_id)
        return Reply([as_json(body)], script.error.status, errors.headers(script.error))

    def _told(self, asked: Asked, script: Script, request_id: str) -> Reply:
        if asked.api == "models":
            return Reply([as_json(_models(anthropic=asked.anthropic))])
        if asked.api == "count":
            kind = {} if asked.anthropic else {"object": "response.input_tokens"}
            count = input_tokens("messages" if asked.anthropic else "responses", asked.body)
            return Reply([as_json(kind | {"input_tokens": count})])
        assert asked.api in ANSWERING
        body = self._answer(asked, script, asked.api)
        if not asked.body.get("stream"):
            return self._timed(Reply([as_json(body)]), body)
        pieces = _events(asked, body)
        if script.break_at is not None:
            pieces = [*pieces[: script.break_at], _broken(asked, script, request_id)]
        return self._timed(Reply(pieces, streams=True), body)

    def _answer(self, asked: Asked, script: Script, api: Answering) -> Body:
        body = ANSWER[api](asked, script, self._clock())
        usage = self._prompts.usage(api, asked.body, words.spoken(asked, script), asked.account)
        return body | {"usage": usage | script.usage}

    def _timed(self, reply: Reply, body: Body) -> Reply:
        usage = body["usage"]
        speaking = usage.get("output_tokens", usage.get("completion_tokens", 0)) * self.token_s
        reply.first_s = self.first_s + (0 if reply.streams else speaking)
        reply.each_s = speaking / len(reply.pieces) if reply.streams else 0
        return reply

    @staticmethod
    def _headers(asked: Asked, request_id: str, *, streams: bool) -> dict[str, str]:
        kind = "text/event-stream; charset=utf-8" if streams else "application/json"
        told = {"Date": "Sat, 21 Nov 2026 12:00:00 GMT", "Content-Type": kind}
        if asked.anthropic:
            limits = {"limit": "4000", "remaining": "3999", "reset": "2026-11-21T12:00:01Z"}
            told |= {f"anthropic-ratelimit-requests-{name}": value for name, value in limits.items()}
            return told | {"request-id": request_id, "anthropic-organization-id": "org-of-the-stub"}
        limits = {"limit-requests": "10000", "remaining-requests": "9999", "reset-requests": "6ms"}
        told |= {f"x-ratelimit-{name}": value for name, value in limits.items()}
        told |= {"openai-version": "2020-10-01", "openai-processing-ms": "12"}
        return told | {"x-request-id": request_id, "openai-organization": "org-of-the-stub"}


def _events(asked: Asked, body: Body) -> list[bytes]:
    if asked.api == "messages":
        return messages.events(body)
    if asked.api == "chat":
        return chat.events(body, asked.body)
    return responses.events(body, asked.body)


def _error_body(asked: Asked, error: Error, request_id: str) -> Body:
    return errors.anthropic_error(error, request_id) if asked.anthropic else errors.openai_error(error)


def _broken(asked: Asked, script: Script, request_id: str) -> bytes:
    """An error in the midst of a stream."""
    body = _error_body(asked, script.error or Error(500), request_id)
    if asked.api == "chat":
        return as_event(body)
    if asked.api == "responses":
        told = {"type": "error", "sequence_number": script.break_at}
        return as_event(told | {name: body["error"][name] for name in ("code", "message", "param")}, "error")
    return as_event(body, "error")


def _models(*, anthropic: bool) -> Body:
    names = [
        name
        for name in json.loads(PRICES.read_text())["models"]
        if name.startswith("claude" if anthropic else "gpt")
    ]
    data: list[dict[str, Any]]
    if anthropic:
        known = {"type": "model", "created_at": "2026-01-01T00:00:00Z"}
        data = [known | {"id": name, "display_name": name} for name in names]
        return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": "system"} for name in names]
    return {"object": "list", "data": data}


@asynccontextmanager
async def running(provider: Provider) -> AsyncIterator[Provider]:
    """In this loop."""
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


@contextmanager
def threaded(provider: Provider) -> Iterator[Provider]:
    """In a loop and a thread of its own, for callers that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(provider.start(), loop).result(10)
        yield provider
    finally:
        asyncio.run_coroutine_threadsafe(provider.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not holds():
            await anyio.sleep(0.005)


def wait_until(holds: Callable[[], bool]) -> None:
    """For who blocks."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.002)
