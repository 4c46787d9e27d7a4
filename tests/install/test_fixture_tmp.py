from __future__ import annotations
import pytest
@pytest.mark.parametrize("i", range(5))
def test_x(owner_conn, i):
    assert owner_conn.execute("select funnelvec.version()").fetchone()[0]=="0.1.0"
