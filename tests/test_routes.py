"""From a path to its target: literals win, placeholders are whole segments, %2F stays inside one."""

from __future__ import annotations

import pytest

from skilld.rpc.routes import Router


def make_router() -> Router[str]:
    router: Router[str] = Router()
    for http_method, template in [
        ("POST", "/"),
        ("GET", "/skills"),
        ("POST", "/skills"),
        ("GET", "/skills/search"),
        ("GET", "/skills/{name}"),
        ("PUT", "/skills/{name}"),
        ("GET", "/skills/{name}/prompt"),
        ("GET", "/skills/{name}/files/{path}"),
        ("GET", "/{any}/deep/er"),
    ]:
        router.add(http_method, template, f"{http_method} {template}")
    return router


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", {"POST": ("POST /", {})}),
        ("/skills", {"GET": ("GET /skills", {}), "POST": ("POST /skills", {})}),
        ("/skills/search", {"GET": ("GET /skills/search", {})}),
        ("/skills/s%65arch", {"GET": ("GET /skills/search", {})}),
        (
            "/skills/pdf",
            {"GET": ("GET /skills/{name}", {"name": "pdf"}), "PUT": ("PUT /skills/{name}", {"name": "pdf"})},
        ),
        ("/skills/pdf/prompt", {"GET": ("GET /skills/{name}/prompt", {"name": "pdf"})}),
        ("/skills/search/prompt", {"GET": ("GET /skills/{name}/prompt", {"name": "search"})}),
        ("/skills/team%2Fdeploy/prompt", {"GET": ("GET /skills/{name}/prompt", {"name": "team/deploy"})}),
        (
            "/skills/%C3%A9%20%25/files/a%2fb.py",
            {"GET": ("GET /skills/{name}/files/{path}", {"name": "é %", "path": "a/b.py"})},
        ),
        ("/skills/deep/er", {"GET": ("GET /{any}/deep/er", {"any": "skills"})}),
        ("/skills/a+b/prompt", {"GET": ("GET /skills/{name}/prompt", {"name": "a+b"})}),
        ("/skills/%zz/prompt", {"GET": ("GET /skills/{name}/prompt", {"name": "%zz"})}),
        ("/skills/", {}),
        ("/skills//prompt", {}),
        ("/skills/pdf/files/a/b.py", {}),
        ("/skills/pdf/", {}),
        ("/nothing", {}),
        ("*", {}),
        ("", {}),
    ],
)
def test_find(path: str, found: dict[str, tuple[str, dict[str, str]]]) -> None:
    """A path leads to the targets of its template, by HTTP method, with its placeholders' values."""
    assert make_router().find(path) == found


def test_value_that_is_not_utf8_is_an_error() -> None:
    """A percent-encoded value must be UTF-8."""
    with pytest.raises(UnicodeDecodeError):
        make_router().find("/skills/%ff")


def test_a_route_is_there_once() -> None:
    """Two targets for one route are a mistake, whatever the placeholder is called."""
    with pytest.raises(ValueError, match=r"two routes for GET /skills/\{id\}"):
        make_router().add("GET", "/skills/{id}", "x")


def test_a_long_path_is_found_missing() -> None:
    """A path of very many segments is no route, and no trouble."""
    assert make_router().find("/a" * 30_000) == {}
