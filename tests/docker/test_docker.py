"""The image and the compose file, where a Docker runs."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec.install import apply
from funnelvec.install.render import load_source

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_the_image_has_the_extension_of_this_checkout(postgres_url: str) -> None:
    source = load_source()
    with psycopg.connect(postgres_url, autocommit=True) as conn:
        assert apply.find_installed(conn) == apply.Installed("extension", source.version)
        assert apply.install(conn).action == "unchanged"
        # The very functions of the checkout: a plain install of it changes none of them.
        conn.execute("create database fresh")
    with psycopg.connect(f"{postgres_url.rpartition('/')[0]}/fresh", autocommit=True) as conn:
        conn.execute("create extension vector; create extension funnelvec")
        query = (
            "select md5(string_agg(pg_get_functiondef(p.oid), '' order by p.proname))"
            "  from pg_proc as p where p.pronamespace = 'funnelvec'::regnamespace"
        )
        before = conn.execute(query).fetchone()
        apply.install(conn, mode="plain", move=True)
        assert conn.execute(query).fetchone() == before


def test_a_search_in_the_image(postgres_url: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    with fv.connect(postgres_url) as pg:
        notes = pg.create("docker_notes", dims=16)
        notes.add(list(range(200)), vectors)
        notes.add_resolution("8:f16", index=True)
        notes.create_funnel("docker_notes_search", "8:f16@50 > 16:f32")
        assert notes.search(vectors[3], k=5)[0].id == 3


def test_qdrant_answers(qdrant_url: str) -> None:
    with urllib.request.urlopen(qdrant_url, timeout=30) as answer:
        found = json.load(answer)
    major, minor, *_ = (int(part) for part in found["version"].split("."))
    assert (major, minor) >= (1, 15)
