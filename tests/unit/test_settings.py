"""Settings are read once, in a fixed order, and a bad one is told by name, value and what is allowed."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from orqestra.model.errors import BadSettings
from orqestra.setting_kinds import Address, SocketPath, mask_url
from orqestra.settings import Settings, variables

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS
NAMES = {field: variable.name for field, variable in variables()}


def load(**environ: str) -> Settings:
    return Settings.load(environ=environ, dotenv=None)


def test_the_defaults_need_nothing_and_stay_on_this_machine() -> None:
    settings = load()

    assert settings.db_url == "postgresql://orqestra@localhost:5432/orqestra"
    assert settings.redis_address == Address(host="localhost", port=6379)
    assert settings.grpc_address.listen == "127.0.0.1:50051"
    assert settings.http_address.listen == "127.0.0.1:8080"
    assert settings.redis_namespace == "jobs"
    assert settings.lease_seconds == 15.0
    assert settings.worker_environment == ()
    assert settings.worker_slots >= 4
    settings.check_listen()


def test_flags_win_over_the_environment_that_over_dotenv_that_over_the_default(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("REDIS_DB=1\nORQESTRA_DB_POOL=11\nORQESTRA_WINDOW=111\n")
    environ = {"REDIS_DB": "2", "ORQESTRA_DB_POOL": "12"}

    settings = Settings.load(environ=environ, dotenv=dotenv, redis_db=3)

    assert (settings.redis_db, settings.db_connections, settings.window_hints) == (3, 12, 111)


def test_dotenv_is_read_and_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    Path(".env").write_text("REDIS_PASSWORD='pa${HOME}ss'\n")

    assert Settings.load().redis_password == "pa${HOME}ss"
    assert Settings.load(dotenv=None).redis_password == ""


def test_a_dotenv_that_is_not_text_is_told(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"REDIS_DB=\xff\n")

    with pytest.raises(BadSettings, match=r"\.env can't be read"):
        Settings.load(environ={}, dotenv=dotenv)


def test_empty_text_and_none_count_as_not_given() -> None:
    settings = Settings.load(environ={"WORKER_COUNT": "3", "REDIS_DB": ""}, dotenv=None, worker_slots=None)

    assert (settings.worker_slots, settings.redis_db) == (3, 0)


def test_flags_may_be_values() -> None:
    settings = Settings.load(environ={}, dotenv=None, insecure=True, state_dir=Path("/srv/x"), worker_slots=9)

    assert (settings.insecure, settings.state_dir, settings.worker_slots) == (True, Path("/srv/x"), 9)


def test_a_flag_that_is_no_setting_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="no such settings: grpc_adress"):
        Settings.load(environ={}, dotenv=None, grpc_adress="x")


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("DB_URL", "mysql://h/db", "postgresql://"),
        ("DB_URL", "postgresql://host:5432", "postgresql://"),
        ("DB_URL", "postgresql://host:port/db", "postgresql://"),
        ("REDIS_ADDR", "localhost", "HOST:PORT"),
        ("REDIS_ADDR", "unix://relative", "unix:///PATH"),
        ("REDIS_ADDR", "unix:///" + "x" * 107, "107 bytes"),
        ("REDIS_DB", "-1", "from 0"),
        ("REDIS_DB", "one", "a whole number"),
        ("REDIS_QUEUE_NAME", "{jobs}", "letters, digits"),
        ("REDIS_QUEUE_NAME", "j" * 65, "1 to 64"),
        ("REDIS_QUEUE_NAME", "jobs\n", "letters, digits"),
        ("GRPC_ADDR", "localhost", "HOST:PORT"),
        ("GRPC_ADDR", "http://localhost:1", "HOST:PORT"),
        ("GRPC_ADDR", "::1:50051", "brackets"),
        ("GRPC_ADDR", "[localhost]:1", "brackets"),
        ("GRPC_ADDR", "localhost:65536", "HOST:PORT"),
        ("HTTP_ADDR", "localhost:", "HOST:PORT"),
        ("WORKER_COUNT", "0", "from 1 to 10000"),
        ("WORKER_COUNT", "10001", "from 1 to 10000"),
        ("ORQESTRA_INSECURE", "yes", "0 or 1"),
        ("ORQESTRA_LEASE_SECONDS", "2.9", "from 3 to 300"),
        ("ORQESTRA_LEASE_SECONDS", "nan", "from 3 to 300"),
        ("ORQESTRA_LEASE_SECONDS", "inf", "from 3 to 300"),
        ("ORQESTRA_DB_POOL", "9" * 5000, "a whole number"),
        ("ORQESTRA_DELETE_COMPLETED_AFTER", "59s", "from 1m to 3660d, or never (or 0)"),
        ("ORQESTRA_DELETE_COMPLETED_AFTER", "3661d", "from 1m to 3660d, or never (or 0)"),
        ("ORQESTRA_DELETE_FAILED_AFTER", "a week", "a duration like 12h or 7d"),
        ("ORQESTRA_DELETE_FAILED_AFTER", "-7d", "a duration like 12h or 7d"),
        ("ORQESTRA_DELETE_CANCELLED_AFTER", "7 d", "a duration like 12h or 7d"),
        ("ORQESTRA_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("ORQESTRA_LOG_FORMAT", "xml", "auto, text, json"),
        ("ORQESTRA_STATE_DIR", "a\0b", "a path"),
        ("ORQESTRA_WORKER_ENV", "A,B-C", "names of variables"),
    ],
)
def test_a_bad_value_is_told_by_name_value_and_what_is_allowed(name: str, text: str, allowed: str) -> None:
    with pytest.raises(BadSettings) as refused:
        load(**{name: text})

    message = str(refused.value)
    assert message.startswith(f"{name}={text!r} (the environment) is not allowed; allowed: ")
    assert allowed in message


def test_the_message_says_where_the_value_came_from(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("REDIS_DB=x\n")

    with pytest.raises(BadSettings, match=r"REDIS_DB='x' \(.*/\.env\)"):
        Settings.load(environ={}, dotenv=dotenv)
    with pytest.raises(BadSettings, match=r"REDIS_DB='y' \(the command line\)"):
        Settings.load(environ={}, dotenv=None, redis_db="y")


def test_no_secret_is_shown() -> None:
    with pytest.raises(BadSettings) as refused:
        load(DB_URL="mysql://me:hun@ter/2@host:x/db?password=hunter3")
    settings = load(DB_URL="postgres://me:hunter2@host/db", REDIS_PASSWORD="hunter4")

    assert "hun" not in str(refused.value)
    assert "mysql://me:***@host:x/db?password=***" in str(refused.value)
    assert "hunter" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://orqestra@localhost:5432/orqestra", "postgresql://orqestra@localhost:5432/orqestra"),
        (
            "postgresql:///db?host=/run/pg&password=x&user=u",
            "postgresql:///db?host=/run/pg&password=***&user=u",
        ),
        ("hunter2", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("text", "listen", "dial", "is_loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", "127.0.0.1:50051", True),
        ("127.9.9.9:0", "127.9.9.9:0", "127.9.9.9:0", True),
        ("localhost:1", "localhost:1", "localhost:1", True),
        ("LocalHost:1", "localhost:1", "localhost:1", True),
        ("[::1]:1", "[::1]:1", "[::1]:1", True),
        (":50051", "0.0.0.0:50051", "localhost:50051", False),
        ("0.0.0.0:50051", "0.0.0.0:50051", "localhost:50051", False),
        ("[::]:50051", "[::]:50051", "localhost:50051", False),
        ("server:50051", "server:50051", "server:50051", False),
        ("10.0.0.7:1", "10.0.0.7:1", "10.0.0.7:1", False),
        ("[::ffff:10.0.0.7]:1", "[::ffff:a00:7]:1", "[::ffff:a00:7]:1", False),
    ],
)
def test_an_address_is_bound_and_dialled(text: str, listen: str, dial: str, is_loopback: bool) -> None:
    address = load(GRPC_ADDR=text).grpc_address

    assert (address.listen, address.dial, address.is_loopback) == (listen, dial, is_loopback)


@pytest.mark.parametrize("name", ["GRPC_ADDR", "HTTP_ADDR"])
def test_to_listen_beyond_this_machine_needs_leave(name: str) -> None:
    with pytest.raises(BadSettings, match=rf"{name}=':9' can be reached.*ORQESTRA_INSECURE=1"):
        load(**{name: ":9"}).check_listen()

    load(**{name: ":9", "ORQESTRA_INSECURE": "1"}).check_listen()


def test_redis_may_be_a_socket() -> None:
    assert load(REDIS_ADDR="unix:///run/redis.sock").redis_address == SocketPath(path=Path("/run/redis.sock"))


def test_the_state_is_kept_where_a_reboot_leaves_it() -> None:
    assert load(XDG_STATE_HOME="/srv/state").state_dir == Path("/srv/state/orqestra")
    assert load(XDG_STATE_HOME="relative").state_dir == Path("~/.local/state/orqestra").expanduser()


def test_names_of_variables_are_separated_by_commas() -> None:
    assert load(ORQESTRA_WORKER_ENV="AWS_REGION, JAVA_HOME,").worker_environment == (
        "AWS_REGION",
        "JAVA_HOME",
    )


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("7d", 7 * DAY_MS),
        ("1d12h", 36 * HOUR_MS),
        ("90", 90_000),
        ("1m", 60_000),
        ("3660d", 3660 * DAY_MS),
        ("never", None),
        ("Never", None),
        ("0", None),
        ("0d", None),
    ],
)
def test_jobs_are_deleted_after_a_time_or_never(text: str, milliseconds: int | None) -> None:
    assert load(ORQESTRA_DELETE_FAILED_AFTER=text).delete_failed_after_ms == milliseconds


def test_completed_jobs_go_sooner_than_others_by_default() -> None:
    settings = load()

    assert settings.delete_completed_after_ms == 7 * DAY_MS
    assert settings.delete_failed_after_ms == settings.delete_cancelled_after_ms == 30 * DAY_MS


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load().redis_db = 1  # type: ignore[misc]  # what the test is about


def test_every_setting_is_ours_or_one_of_the_named() -> None:
    named = {
        "DB_URL",
        "WORKER_COUNT",
        "REDIS_ADDR",
        "REDIS_PASSWORD",
        "REDIS_DB",
        "REDIS_QUEUE_NAME",
        "GRPC_ADDR",
        "HTTP_ADDR",
        "WORKFLOWS_DIR",
    }

    assert named <= set(NAMES.values())
    assert all(name.startswith("ORQESTRA_") for name in set(NAMES.values()) - named)
