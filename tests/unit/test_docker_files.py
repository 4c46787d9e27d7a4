"""What can be said of docker/ without a Docker: what it copies is there, no version floats."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker" / "compose.yaml").read_text()


def test_everything_copied_exists_and_is_not_ignored() -> None:
    sources = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    assert sources == ["sql", "migrations", "docker/create-extensions.sql"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.partition('/')[0]}" in ignored
    assert re.findall(r"^COPY --from=(\w+) /stage/ /$", DOCKERFILE, re.MULTILINE) == ["files"]


def test_the_extension_is_installed_by_its_own_makefile() -> None:
    makefile = (ROOT / "sql" / "Makefile").read_text()
    for variable in ("DESTDIR", "SHAREDIR"):
        assert f"{variable}=" in DOCKERFILE
        assert f"$({variable})" in makefile
    created = (ROOT / "docker" / "create-extensions.sql").read_text()
    assert re.findall(r"^create extension (\w+);$", created, re.MULTILINE) == [
        "vector",
        "funnelvec",
    ]


def test_versions_are_pinned_and_ports_stay_on_this_machine() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(images) == {"pgvector/pgvector:${PGVECTOR}-pg${POSTGRES}"}
    assert re.search(r"^ARG PGVECTOR=\d+\.\d+\.\d+$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^ARG POSTGRES=\d+$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"image: qdrant/qdrant:\$\{FUNNELVEC_QDRANT:-v\d+\.\d+\.\d+\}", COMPOSE)
    ports = re.findall(r'- "([^"]+:\d+)"', COMPOSE)
    assert len(ports) == 3 and all(port.startswith("127.0.0.1:") for port in ports)
