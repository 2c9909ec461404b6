"""Index schemas are read strictly: RedisVL itself passes over what it doesn't know."""

from pathlib import Path

import msgspec
import pytest
import yaml

from service.errors import LayoutError
from service.model import Generation
from service.settings import Settings
from service.store.index import _create_command, as_kept, check_schema, datatype_of, load_schema
from service.store.vectors import DATATYPES

GENERATION = Generation(
    number=1, index="1", space="1", model="m", revision="r", dim=384, datatype="float16", threshold=0.9
)
SHIPPED = Settings().schema_dir / "responses.yaml"


def test_the_shipped_schema() -> None:
    schema = load_schema(SHIPPED)
    check_schema(schema, GENERATION)
    command = _create_command(schema, "name", "prefix:")
    assert command[:7] == ("FT.CREATE", "name", "ON", "HASH", "PREFIX", 1, "prefix:")
    assert command.count("CASESENSITIVE") == 9


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("dims: 384", "dims: 385", "dims"),
        ("distance_metric: cosine", "distance_metric: l2", "distance_metric"),
        ("{name: scope, type: tag, attrs: {case_sensitive: true}}", "{name: scope, type: tag}", "scope"),
        ("- {name: history, type: tag, attrs: {case_sensitive: true}}", "", "history"),
    ],
)
def test_a_schema_that_lookups_cannot_use_is_refused(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "responses.yaml"
    path.write_text(SHIPPED.read_text().replace(old, new))
    with pytest.raises(LayoutError, match=named):
        check_schema(load_schema(path), GENERATION)


def test_the_shipped_dims_follow_the_embedder() -> None:
    other = msgspec.structs.replace(GENERATION, dim=1536)
    schema = load_schema(SHIPPED, 1536)
    check_schema(schema, other)
    command = _create_command(schema, "name", "prefix:")
    assert command[command.index("DIM") + 1] == "1536"


def test_other_dims_must_be_the_embedders(tmp_path: Path) -> None:
    path = tmp_path / "responses.yaml"
    path.write_text(SHIPPED.read_text().replace("dims: 384", "dims: 1024"))
    check_schema(load_schema(path, 1024), msgspec.structs.replace(GENERATION, dim=1024))
    with pytest.raises(LayoutError, match="is 1024; m asks for 1536: set it to that, or to 384"):
        check_schema(load_schema(path, 1536), msgspec.structs.replace(GENERATION, dim=1536))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("case_sensitive: true", "case_sensitiv: true", "case_sensitiv"),
        ("ef_runtime", "ef_runtme", "ef_runtme"),
        ("version:", "meta: {a: 1}\nversion:", "meta"),
        ("storage_type:", "storage: x\n  storage_type:", "index.storage"),
        ("algorithm: hnsw", "algorithm: hnws", "hnws"),
        ("fields:", "fields: [", "parsing"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "responses.yaml"
    path.write_text(SHIPPED.read_text().replace(old, new))
    with pytest.raises(LayoutError, match=named):
        load_schema(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"responses\.yaml"):
        load_schema(tmp_path / "responses.yaml")


def test_the_file_stays_plain_yaml() -> None:
    assert yaml.safe_load(SHIPPED.read_text())["index"]["name"] == "responses"


def test_a_new_generation_keeps_what_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "responses.yaml"
    for name in DATATYPES:
        path.write_text(SHIPPED.read_text().replace("datatype: float16", f"datatype: {name}"))
        assert datatype_of(load_schema(path)) == name
    path.write_text(SHIPPED.read_text().replace("datatype: float16", "datatype: float64"))
    with pytest.raises(LayoutError, match="is float64: set one of float32, float16, bfloat16"):
        datatype_of(load_schema(path))


def test_vectors_that_are_there_keep_their_datatype() -> None:
    older = msgspec.structs.replace(GENERATION, datatype="float32")
    schema = as_kept(load_schema(SHIPPED), older)
    check_schema(schema, older)
    command = _create_command(schema, "name", "prefix:")
    assert command[command.index("TYPE") + 1] == "FLOAT32"
