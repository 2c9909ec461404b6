"""A tenant comes from a key and from nowhere else.

BerriAI/litellm#29955 and vllm-project/semantic-router#2134: tenants taken from requests leaked answers.
"""

import ast
from pathlib import Path

import msgspec
import pytest

import service
from service.model import LookupRequest, StoreRequest

ROOT = Path(service.__file__).parent
DOOR = ROOT / "api" / "auth.py"


def made_tenants(source: str) -> list[int]:
    """Lines that make a Tenant, by call, cast, conversion or default."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            callee = ast.unparse(node.func)
            names = [ast.unparse(argument) for argument in [*node.args, *(k.value for k in node.keywords)]]
            if callee.endswith("Tenant") and callee != "NewType":
                lines.append(node.lineno)
            elif callee.split(".")[-1] in {"cast", "convert", "decode", "Decoder", "decoder"}:
                lines += [node.lineno for name in names if name.strip("'\"").endswith("Tenant")]
    return lines


def uses(source: str, name: str) -> bool:
    """Whether a module names something, however it imports it."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = any(
        name == alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    )
    return imported or any(isinstance(node, ast.Attribute) and node.attr == name for node in nodes)


def test_only_commands_name_a_tenant_themselves() -> None:
    users = {path.name for path in ROOT.rglob("*.py") if uses(path.read_text(), "operator")}
    assert users == {"cli.py"}


@pytest.mark.parametrize(
    "code", ["from service.api.auth import operator as o", "from service.api import auth; auth.operator('x')"]
)
def test_the_second_rule_sees(code: str) -> None:
    assert uses(code, "operator")


def test_nobody_renames_the_type() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not [alias for alias in node.names if alias.name == "Tenant" and alias.asname], path


def test_only_the_door_makes_tenants() -> None:
    for path in ROOT.rglob("*.py"):
        assert path == DOOR or not made_tenants(path.read_text()), path
    assert made_tenants(DOOR.read_text())


@pytest.mark.parametrize(
    "code",
    [
        "Tenant(x)",
        "model.Tenant('a')",
        "cast(Tenant, x)",
        "cast('Tenant', x)",
        "msgspec.convert(x, type=Tenant)",
    ],
)
def test_the_rule_sees(code: str) -> None:
    assert made_tenants(code) == [1]


@pytest.mark.parametrize("kind", [LookupRequest, StoreRequest])
def test_no_request_names_a_tenant(kind: type[msgspec.Struct]) -> None:
    assert not [name for name in kind.__struct_fields__ if "tenant" in name]
