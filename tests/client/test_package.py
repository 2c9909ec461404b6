"""What the package exports, what it loads and when."""

import subprocess
import sys
from importlib import metadata

import pytest

import semcached
from semcached import errors, model


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has after it ran that."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.split())


HEAVY = {"httpx", "httpcore", "h11", "anyio", "langchain_core", "service", "redis", "numpy"}


def test_the_import_loads_nothing_else() -> None:
    assert not loaded("import semcached") & (
        HEAVY | {"msgspec", "semcached.client", "semcached.tools", "asyncio"}
    )


def test_a_decorator_loads_httpx_with_the_first_call() -> None:
    code = """
from semcached import cached_tool, cached_answer, set_testing, SemcachedError, Hit
@cached_tool(ttl=60, name="tool")
def tool(x): return x
@cached_answer(agent_type="a", model="m", prompt_version="1")
async def answer(prompt): return prompt
set_testing()
tool(1)
"""
    assert not loaded(code) & HEAVY
    assert "httpx" in loaded(f"{code}\nset_testing(False)\ntool(1)")


def test_nothing_of_langchain_without_its_module() -> None:
    assert not loaded("from semcached import *") & {"langchain_core", "service", "redis", "numpy", "pydantic"}


def test_exported_names() -> None:
    exported = set(semcached.__all__)
    assert exported == set(dir(semcached)) & exported
    for name in exported:
        assert getattr(semcached, name).__module__.startswith("semcached.")
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert tree <= exported
    assert {name for name in exported if name.endswith("Error")} - {"FieldError"} == tree
    assert list(semcached.__all__) == sorted(semcached.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = semcached.nothing


def test_the_error_tree_is_as_drawn() -> None:
    drawn = errors.__doc__ or ""
    for name in semcached.__all__:
        if name.endswith("Error") and name != "FieldError":
            assert name in drawn
            assert issubclass(getattr(semcached, name), semcached.SemcachedError)


def test_results_cant_be_changed() -> None:
    for name in semcached.__all__:
        value = getattr(semcached, name)
        if value.__module__ == model.__name__:
            assert value.__struct_config__.frozen


def test_what_it_needs() -> None:
    needs = metadata.requires("semcached") or []
    assert {one.split(">")[0] for one in needs if "extra" not in one} == {"httpx", "msgspec"}
    assert metadata.metadata("semcached")["License-Expression"] == "Apache-2.0"
