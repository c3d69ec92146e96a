"""What runs in Docker is closed to strangers, checked, and configured by names that exist."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from orqestra.settings import Settings, variables
from tools.docker_secrets import NAMES as SECRETS
from tools.docker_secrets import complete

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "orqestra:local")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = {variable.name for _, variable in variables()}
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")


def instructions(word: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{word} ")]


def text_of(name: str) -> str:
    return yaml.safe_dump(SERVICES[name], width=1000)


def with_secrets(environment: dict[str, str]) -> dict[str, str]:
    return {name: REQUIRED.sub("5ec2e7", text) for name, text in environment.items()}


def test_one_command_brings_up_all_parts() -> None:
    assert sorted(SERVICES) == ["migrate", "postgres", "redis", "server", "worker"]
    assert OURS == ["migrate", "server", "worker"]


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_made_of_settings_with_allowed_values(name: str) -> None:
    environment = with_secrets(SERVICES[name].get("environment", {}))

    assert set(environment) <= SETTINGS
    settings = Settings.load(environ=environment, dotenv=None)
    if name == "server":
        settings.check_listen()


def test_the_image_sets_only_settings_and_what_python_reads() -> None:
    names = {name for line in instructions("ENV") for name in re.findall(r"(\w+)=", line)}

    assert names - SETTINGS == {"PATH", "PYTHONUNBUFFERED"}


def test_the_worker_dials_the_server_and_knows_neither_database_nor_redis() -> None:
    worker = Settings.load(environ=with_secrets(SERVICES["worker"]["environment"]), dotenv=None)
    server = Settings.load(environ=with_secrets(SERVICES["server"]["environment"]), dotenv=None)

    assert worker.grpc_address.dial == f"server:{server.grpc_address.port}"
    assert not {"DB_URL", "REDIS_ADDR", "REDIS_PASSWORD"} & set(SERVICES["worker"]["environment"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(name: str) -> None:
    ports = SERVICES[name].get("ports", [])

    assert all(isinstance(port, str) and port.startswith("127.0.0.1:") for port in ports)
    assert not ports or name == "server"
    assert "network_mode" not in SERVICES[name]


def test_only_the_server_is_insecure_and_the_reason_stands_beside_it() -> None:
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines) if "ORQESTRA_INSECURE:" in line)

    assert lines[number - 1].lstrip().startswith("# ")
    assert "127.0.0.1" in lines[number - 1]
    assert SERVICES["server"]["environment"]["ORQESTRA_INSECURE"] == "1"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_checked(name: str) -> None:
    healthcheck = SERVICES[name]["healthcheck"]

    if name == "migrate":
        assert healthcheck == {"disable": True}
        condition = SERVICES["server"]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
    else:
        assert healthcheck["test"][0] in {"CMD", "CMD-SHELL"}
        assert {"interval", "timeout", "retries"} <= set(healthcheck)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_password_is_shipped(name: str) -> None:
    passwords = {key: text for key, text in SERVICES[name].get("environment", {}).items() if "PASSWORD" in key}

    assert all(REQUIRED.fullmatch(text) for text in passwords.values())
    assert set(REQUIRED.findall(text_of(name))) <= set(SECRETS)
    assert not re.search(r"://[^:/]+:(?!\$\{)[^@]*@", text_of(name))


def test_redis_asks_for_a_password_and_forgets_nothing() -> None:
    *_, configuration = SERVICES["redis"]["command"]

    assert "requirepass $$REDIS_PASSWORD\n" in configuration
    assert "maxmemory-policy noeviction\n" in configuration


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nothing_runs_as_root_or_with_privileges(name: str) -> None:
    service = SERVICES[name]

    assert service.get("user", "root") != "root" or name in OURS
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert instructions("USER") == ["orqestra"]
    assert re.search(r"useradd .*--uid [1-9]\d* .*orqestra", DOCKERFILE)


def test_workflows_are_mounted_for_reading() -> None:
    assert SERVICES["server"]["volumes"] == ["./workflows:/workflows:ro"]
    assert "WORKFLOWS_DIR=/workflows" in DOCKERFILE


def test_images_have_a_version() -> None:
    stages = {line.split(" AS ")[1] for line in instructions("FROM") if " AS " in line}
    images = {line.split(" AS ")[0] for line in instructions("FROM")} - stages
    images |= {service["image"] for service in SERVICES.values()}

    assert all(re.search(r":[^:]+$", image) and not image.endswith(":latest") for image in images)


def test_the_image_has_a_health_check_and_starts_the_command() -> None:
    assert len(instructions("HEALTHCHECK")) == 1
    assert "/readyz" in instructions("HEALTHCHECK")[0]
    assert instructions("ENTRYPOINT") == ['["orqestra"]']


def test_all_that_the_image_copies_exists_and_is_not_ignored() -> None:
    sources = [name for line in instructions("COPY") if not line.startswith("--from=") for name in line.split()[:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    assert set(sources) == allowed
    assert all((ROOT / name).exists() for name in sources)


def test_commands_get_their_whole_drain_before_docker_ends_them() -> None:
    worker = SERVICES["worker"]
    drain_seconds = Settings.load(environ=worker["environment"], dotenv=None).drain_seconds

    assert int(worker["stop_grace_period"].removesuffix("s")) > drain_seconds


def test_missing_passwords_are_made_and_present_ones_kept(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"REDIS_DB=3\n{SECRETS[0]}=mine")

    made = complete(dotenv)

    assert made == SECRETS[1:]
    assert dotenv.read_text().startswith(f"REDIS_DB=3\n{SECRETS[0]}=mine\n{SECRETS[1]}=")
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert complete(dotenv) == ()


def test_made_passwords_are_long_random_and_not_settings(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    complete(first)
    complete(second)

    assert first.read_text() != second.read_text()
    assert all(re.fullmatch(r"[A-Z_]+=[0-9a-f]{48}", line) for line in first.read_text().splitlines())
    assert not set(SECRETS) & SETTINGS
