"""What a component shows of itself."""

from treenail.kernel import late, spec


def opened(root: str, *, token: str | None = None, headers: dict[str, str] = {}, retries: int = 5) -> str:  # noqa: B006
    return f"{root} {token} {headers} {retries}"


def test_a_repr_shows_no_credentials() -> None:
    given = spec(opened)("x", token="hunter2", headers={"Cookie": "hunter2"}, retries=3)
    assert repr(given).endswith(":opened('x', token=***, headers=***, retries=3))")
    assert "token=None" in repr(late(opened)(token=None))
    nested = spec(opened)(root="https://user:hunter2@host/d?x=a@b")
    assert "root='https://***@host/d?x=a@b'" in repr(nested)
    assert given.build() == "x hunter2 {'Cookie': 'hunter2'} 3", "only the repr is without them"
