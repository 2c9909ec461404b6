"""Chromium without a window, driven over its DevTools protocol: keys go in as from a keyboard."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless=new",
    "--no-sandbox",  # root in a container has none; it opens our own pages only
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
]
WAIT_S = 60
NAMED = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9), "ArrowDown": ("", 40), "ArrowUp": ("", 38)}


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """The protocol's answer to a command."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = self._receive(WAIT_S)
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._socket.recv(timeout_s))
        if "method" in told:
            self.events.append(told)
        if told.get("method") == "Page.javascriptDialogOpening":  # it would stop everything
            command = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self._socket.send(json.dumps(command))
        return told

    def seen(self, method: str) -> list[dict[str, Any]]:
        """The parameters of such events, in order."""
        return [one["params"] for one in self.events if one["method"] == method]

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait(lambda: self.seen("Page.loadEventFired"), url)

    def js(self, expression: str) -> Any:
        """What it comes to, awaited."""
        told = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def text(self, name: str) -> str:
        """Of the element with that id."""
        found: str = self.js(f"document.getElementById({name!r}).textContent")
        return found

    def press(self, key: str, *, modifiers: int = 0, repeat: bool = False) -> None:
        """A key down and up; `modifiers`: 2 is Ctrl."""
        text, code = NAMED.get(key, (key, ord(key[0].upper())))
        told = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code, "autoRepeat": repeat}
        written = {} if modifiers or not text else {"text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown" if written else "rawKeyDown", **told, **written)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Key by key, into what has the focus."""
        for key in text:
            self.press(key)

    def wait(self, seen: Callable[[], Any], what: str) -> Any:
        """Until it is true; what it was then."""
        deadline = time.monotonic() + WAIT_S
        while not (found := seen()):
            assert time.monotonic() < deadline, f"never: {what}"
            self.js("new Promise((done) => setTimeout(done, 20))")
        return found

    def until(self, expression: str) -> Any:
        """Until it is true in the page."""
        return self.wait(lambda: self.js(expression), expression)

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A fresh profile in `folder`, with one tab."""
    assert PROGRAM is not None
    command = [PROGRAM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(folder, process), max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Of the tab's socket."""
    port, deadline = folder / "DevToolsActivePort", time.monotonic() + WAIT_S
    while not (port.exists() and port.read_text()):
        assert process.poll() is None, "chromium ended at once"
        assert time.monotonic() < deadline, "chromium doesn't start"
        time.sleep(0.05)
    tabs = httpx.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list").json()
    address: str = next(one for one in tabs if one["type"] == "page")["webSocketDebuggerUrl"]
    return address
