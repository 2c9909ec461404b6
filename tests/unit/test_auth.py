"""Keys, roles, and the file they lie in."""

from pathlib import Path

import pytest

from service.api.auth import Keys, Principal, Role, create_key, operator, read_keys, revoke_key
from service.errors import (
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    SettingsError,
    UnauthenticatedError,
)


def test_without_a_file_everybody_is_admin_of_default(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    assert not keys.enforced
    assert keys.authenticate("Bearer whatever") == Principal(operator("default"), Role.admin, "open")


def test_a_created_key_is_known_at_once_and_a_revoked_one_no_more(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys(path)
    key = create_key(path, "acme", Role.writer, 2.5)
    found = keys.authenticate(f"Bearer {key}")
    assert found == Principal(operator("acme"), Role.writer, read_keys(path)[0].id, 2.5)
    for other in (None, "", "Bearer", f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-1]}", "Bearer "):
        with pytest.raises(UnauthenticatedError):
            keys.authenticate(other)
    revoke_key(path, read_keys(path)[0].id)
    with pytest.raises(UnauthenticatedError):
        keys.authenticate(f"Bearer {key}")


def test_the_file_holds_no_key_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    key = create_key(path, "acme", Role.reader)
    assert key.encode() not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_once_in_force_keys_stay_in_force(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "acme", Role.reader)
    keys = Keys(path)
    path.unlink()
    assert keys.enforced
    with pytest.raises(UnauthenticatedError):
        keys.authenticate(None)


def test_a_broken_file_lets_nobody_in_and_stops_a_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "acme", Role.reader)
    keys = Keys(path)
    path.write_text("[{]")
    with pytest.raises(UnauthenticatedError):
        keys.authenticate(f"Bearer {key}")
    with pytest.raises(SettingsError):
        Keys(path)


def test_keys_that_share_a_prefix_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = {create_key(path, f"tenant {n}", Role.reader): n for n in range(50)}
    keys = Keys(path)
    for key, n in made.items():
        assert keys.authenticate(f"bearer {key}").tenant == f"tenant {n}"


def test_an_admin_key_works_without_a_file(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", admin_key="boot")
    assert keys.enforced
    assert keys.authenticate("Bearer boot").role is Role.admin
    with pytest.raises(UnauthenticatedError):
        keys.authenticate("Bearer boot2")


def test_roles_include_the_ones_before() -> None:
    writer = Principal(operator("acme"), Role.writer, "k")
    writer.require(Role.reader)
    writer.require(Role.writer)
    with pytest.raises(ForbiddenError):
        writer.require(Role.admin)


def test_a_keys_file_that_is_named_and_missing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Keys(tmp_path / "keys.json")
    assert not caplog.records
    Keys(tmp_path / "keys.json", expected=True)
    assert "SEMCACHED_KEYS_FILE" in caplog.text


def test_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for bad in ("", "é" * 257, "\udcff"):
        with pytest.raises(InvalidInputError):
            create_key(path, bad, Role.reader)
    with pytest.raises(NotFoundError):
        revoke_key(path, "none")
