"""Settings come from the environment, whole or not at all."""

from pathlib import Path

import pytest

from service.cli import _exported
from service.errors import SettingsError
from service.settings import Settings, described, from_environment


def test_defaults() -> None:
    assert from_environment({"PATH": "/bin", "SEMCACHED_HOST": ""}) == Settings()


def test_values_are_parsed() -> None:
    environ = {"SEMCACHED_PORT": "99", "SEMCACHED_DATA_DIR": "x", "SEMCACHED_THRESHOLD": "0.5"}
    assert from_environment(environ) == Settings(port=99, data_dir=Path("x"), threshold=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("EMBEDDINGS_TTL_S", "0"),
        ("MEMORY_BYTES", "-1"),
        ("SHARE_EMBEDDINGS", "yes"),
        ("WORKERS", "0"),
        ("PARTITIONS", "0"),
        ("THRESHOLD", "nan"),
        ("THRESHOLD", "1.1"),
        ("SECRET", "short"),
        ("PREVIOUS_SECRET", "short"),
        ("EMBEDDER", "none"),
        ("KEY_PREFIX", "a:b"),
        ("REDIS_TIMEOUT_S", "0"),
        ("OPENAI_BASE_URL", "localhost:11434"),
        ("OPENAI_BASE_URL", "https://user:password@host/v1"),
        ("OPENAI_API_KEY", "a key"),
        ("OPENAI_DIMENSIONS", "0"),
        ("OPENAI_DIMENSIONS", "many"),
        ("OPENAI_MAX_BYTES", "0"),
        ("OPENAI_TIMEOUT_S", "nan"),
        ("OPENAI_CONCURRENCY", "0"),
        ("REWRITER", "gemini"),
        ("REWRITER_BASE_URL", "localhost"),
        ("REWRITER_API_KEY", "a key"),
        ("REWRITER_TIMEOUT_S", "61"),
        ("REWRITER_CONCURRENCY", "0"),
        ("JUDGE", "gemini"),
        ("JUDGE_BASE_URL", "localhost"),
        ("JUDGE_API_KEY", "a key"),
        ("JUDGE_TIMEOUT_S", "0"),
        ("JUDGE_CONCURRENCY", "0"),
        ("TRESHOLD", "0.9"),
    ],
)
def test_a_wrong_one_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"SEMCACHED_{name}"):
        from_environment({f"SEMCACHED_{name}": value})


@pytest.mark.parametrize("settings", [Settings(), Settings(openai_dimensions=256, openai_api_key="k")])
def test_workers_get_what_the_command_had(settings: Settings) -> None:
    assert from_environment(_exported(settings)) == settings


@pytest.mark.parametrize("name", ["REWRITER", "JUDGE"])
@pytest.mark.parametrize(
    ("given", "lacking"),
    [({"": "openai"}, "MODEL"), ({"": "anthropic", "_MODEL": "m"}, "API_KEY")],
)
def test_an_llm_needs_more_than_its_name(name: str, given: dict[str, str], lacking: str) -> None:
    environ = {f"SEMCACHED_{name}{part}": value for part, value in given.items()}
    with pytest.raises(SettingsError, match=f"SEMCACHED_{name}_{lacking}: must be set"):
        from_environment(environ)
    llm = from_environment(environ | {f"SEMCACHED_{name}_{lacking}": "m"}).llm(name.lower())
    assert llm is not None
    assert (llm.api, llm.model) == (given[""], "m")


def test_no_llm_is_asked_unless_one_is_set() -> None:
    settings = from_environment({"SEMCACHED_JUDGE": "off", "SEMCACHED_REWRITER": ""})
    assert settings.llm("judge") is settings.llm("rewriter") is None


def test_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        from_environment({"SEMCACHED_OPENAI_API_KEY": "sk-tést"})
    assert "sk-" not in str(caught.value)


def test_what_kubernetes_injects_is_passed_over() -> None:
    environ = {
        "SEMCACHED_SERVICE_HOST": "10.0.0.1",
        "SEMCACHED_SERVICE_PORT_HTTP": "80",
        "SEMCACHED_PORT": "tcp://10.0.0.1:80",
        "SEMCACHED_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert from_environment(environ) == Settings()


def test_each_is_described() -> None:
    assert all(text for _, _, text in described())


def test_an_agent_and_the_service_may_have_one_environment() -> None:
    ours = {"SEMCACHED_URL": "http://127.0.0.1:8080", "SEMCACHED_API_KEY": "sk-sc-1", "SEMCACHED_PORT": "99"}
    assert from_environment(ours) == Settings(port=99)
