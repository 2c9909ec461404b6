"""What tells two functions of one name apart: where they are defined, what they capture, a method's class."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semcached import Client, ToolHit, cached_answer, cached_tool
from semcached.places import place_of_class

SCRIPT = """
import multiprocessing, sys
from semcached import Client, cached_answer, cached_tool

url, agent = sys.argv[1:3]
client = Client(url, connect_timeout_s=30)

@cached_tool(client=client, agent_type=agent, timeout_s=30)
def search(q: str) -> str:
    return f"{q} of NAME"

@cached_answer(agent_type=agent, model="m", client=client, timeout_s=30)
def answer(prompt: str) -> str:
    return f"{prompt}: NAME's answer"

class Agent:
    @cached_tool(client=client, agent_type=agent, timeout_s=30)
    def fetch(self, q: str) -> str:
        return f"{q} of {multiprocessing.current_process().name}"

def asked(q: str) -> list[str]:
    return [search(q), answer(q), Agent().fetch(q)]

if __name__ == "__main__":
    if sys.argv[3:]:
        with multiprocessing.get_context(sys.argv[3]).Pool(1) as pool:
            print(pool.apply(asked, ["What does tea cost?"]))
    print(asked("What does tea cost?"))
"""


def ran(script: Path, *args: str) -> list[str]:
    done = subprocess.run([sys.executable, script, *args], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_two_scripts_dont_share(url: str, agent: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        script = tmp_path / f"{name}.py"
        script.write_text(SCRIPT.replace("NAME", name))
        found = ran(script, url, agent)[0]
        assert f"? of {name}'" in found
        assert f"{name}'s answer" in found


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_a_script_shares_with_its_children(url: str, agent: str, tmp_path: Path, how: str) -> None:
    script = tmp_path / "a.py"
    script.write_text(SCRIPT)
    child, parent = ran(script, url, agent, how)
    assert "PoolWorker-1" in child
    assert parent == child


def test_a_module_that_is_run_shares_with_one_that_is_imported(
    client: Client, url: str, agent: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SCRIPT)
    importing = f"import sys; sys.argv = ['', {url!r}, {agent!r}]; import shop; print(shop.asked('tea'))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = [
        subprocess.run(
            [sys.executable, *args], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for args in (["-c", importing], ["-m", "shop", url, agent])
    ]
    assert "tea of MainProcess" in told[0]
    for version in ("shop.search", "shop.Agent.fetch shop.Agent"):
        found = client.lookup_tool(
            agent_type=agent,
            tool=version.split()[0].rpartition(".")[2],
            version=version,
            arguments={"q": "What does tea cost?"},
        )
        assert isinstance(found, ToolHit), version


def test_code_without_a_file_needs_a_name() -> None:
    """As in a notebook."""
    code = """
from semcached import cached_answer, cached_tool
def f(x): return x
class Agent:
    @cached_tool(name="fetch")
    def fetch(self, x): return x
cached_tool(name="f")(f), cached_answer(agent_type="a", model=None, prompt_version="1")(f)
for decorator in (cached_tool, cached_answer(agent_type="a", model=None)):
    try: decorator(f)
    except TypeError as error: print(error)
"""
    for args, given in ((["-c", code], ""), (["-"], code)):
        done = subprocess.run(
            [sys.executable, *args], input=given, capture_output=True, text=True, check=True
        )
        assert [line.split(";")[0] for line in done.stdout.splitlines()] == [
            "f: code without a file, as a notebook's, has no name of its own"
        ] * 2
        assert "name=" in done.stdout
        assert "prompt_version" in done.stdout


def test_what_captures_variables_needs_a_name(client: Client, agent: str) -> None:
    def made(n: int, decorator: Callable[[Any], Any]) -> Any:
        @decorator
        def look_up(x: str) -> str:
            return f"{n} {x}"

        return look_up

    for decorator in (cached_tool, cached_answer(agent_type=agent, model="m")):
        with pytest.raises(TypeError, match="look_up: it captures n, which is no part of the key"):
            made(1, decorator)
    named = [
        made(n, cached_tool(client=client, agent_type=agent, name=f"get_{n}", timeout_s=30)) for n in (1, 2)
    ]
    assert [one("x") for one in named] == ["1 x", "2 x"]


def test_what_captures_its_class_or_a_wrapped_function_needs_none(client: Client, agent: str) -> None:
    class Inner(Base):
        @cached_tool(client=client, agent_type=agent, timeout_s=30)
        def get(self, x: int) -> list[Any]:
            return [*super().get(x), __class__.__name__]  # type: ignore[name-defined] # mypy doesn't know it

    assert Inner(1).get(1) == ["base", 1, 1, "Inner"]


class Base:
    who = "base"

    def __init__(self, n: int) -> None:
        self.n = n

    @cached_tool(timeout_s=30, agent_type="places")
    def get(self, x: int) -> list[Any]:
        return [self.who, self.n, x]

    @cached_answer(agent_type="places", model="m", timeout_s=30)
    def reply(self, prompt: str) -> str:
        return f"{prompt} says {self.who}"

    @cached_tool(timeout_s=30, agent_type="places", name="get_named")
    def named(self, x: int) -> list[Any]:
        return [self.who, x]

    @classmethod
    @cached_tool(timeout_s=30, agent_type="places")
    def kind(cls) -> str:
        return cls.__name__


class Sub(Base):
    who = "sub"

    @cached_tool(timeout_s=30, agent_type="places", name="get_named", wait=60)
    def named(self, x: int) -> list[Any]:
        return [*super().named(x), "more"]


@cached_tool(timeout_s=30, agent_type="places")
def of_a_self(self: str, x: int = 1) -> list[Any]:
    return [self, x]


def test_classes_dont_share(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    assert [Base(1).get(1), Base(2).get(1), Sub(3).get(1)] == [["base", 1, 1]] * 2 + [["sub", 3, 1]]
    assert [Base(1).reply("What?"), Sub(1).reply("What?")] == ["What? says base", "What? says sub"]
    assert [Base.kind(), Sub.kind(), Base.kind()] == ["Base", "Sub", "Base"]
    assert [Sub(1).named(1), Base(1).named(1)] == [["sub", 1, "more"], ["base", 1]]


def test_a_functions_own_self_is_an_argument(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    assert [of_a_self("a"), of_a_self("b"), of_a_self("a", 2)] == [["a", 1], ["b", 1], ["a", 2]]

    @cached_tool(timeout_s=30, agent_type="places")
    def local(self: str) -> str:
        return self

    assert [local("a"), local("b")] == ["a", "b"]


def test_a_class_without_a_file_runs_uncached(
    monkeypatch: pytest.MonkeyPatch, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    noted = type("Noted", (Base,), {"__module__": "__main__"})
    assert place_of_class(noted) is None
    assert [noted(n).get(7) for n in (1, 2)] == [["base", 1, 7], ["base", 2, 7]]
    assert caplog.text.count("Noted has no file") == 1


def test_methods_that_instances_cant_be_told_by_are_refused() -> None:
    class Agent:
        def run(self) -> int:
            return id(self)

        def ask(self, prompt: str) -> str:
            return f"{id(self)} {prompt}"

    with pytest.raises(TypeError, match="all instances would share"):
        cached_tool(Agent.run)
    cached_tool(name="run")(Agent.run)
    for decorator in (cached_tool, cached_answer(agent_type="a", model=None)):
        with pytest.raises(TypeError, match="bound method"):
            decorator(Agent().ask)
    cached_tool(name="ask")(Agent().ask)


def test_a_prompt_cant_be_ignored() -> None:
    def answer(prompt: str, trace: str = "") -> str:
        return prompt + trace

    with pytest.raises(TypeError, match="isn't ignored, the prompt"):
        cached_answer(agent_type="a", model=None, ignore=["prompt"])(answer)
    cached_answer(agent_type="a", model=None, ignore=["trace"])(answer)
