"""The servers of docker/compose.yaml, by pytest-docker; a clean skip where no Docker runs."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str | None:
    """Say why Docker cannot be used here; None if it can."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"`{' '.join(command)}` does not run: {error}"
        if done.returncode:
            *_, last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return f"`{' '.join(command)}` fails: {last}"
    return None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def _docker() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"needs a running Docker: {reason}")


@pytest.fixture(scope="session")
def docker_compose_file(_docker: None) -> str:
    return str(ROOT / "docker" / "compose.yaml")


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --build --detach --wait --wait-timeout 300"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes"]


@pytest.fixture(scope="session")
def _free_ports() -> Iterator[None]:
    """Any ports: the usual ones may be in use by the databases of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("POSTGRES", "QDRANT", "QDRANT_GRPC"):
            patched.setenv(f"FUNNELVEC_{name}_PORT", "0")
        yield


@pytest.fixture(scope="session")
def servers(_docker: None, _free_ports: None, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("docker_services")


@pytest.fixture(scope="session")
def postgres_url(servers: Any) -> str:
    port = servers.port_for("postgres", 5432)
    return f"postgresql://postgres:funnelvec@127.0.0.1:{port}/postgres"


@pytest.fixture(scope="session")
def qdrant_url(servers: Any) -> str:
    url = f"http://127.0.0.1:{servers.port_for('qdrant', 6333)}"
    # Its image has nothing that a health check in the compose file could ask with.
    servers.wait_until_responsive(check=lambda: answers(url), timeout=60, pause=0.5)
    return url
