"""
From an HTTP path to what answers it.

Owns: nothing once built; values only.

Source: API, section 1.1: a ``/`` inside an id is ``%2F``; static routes win.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")


class Router(Generic[T]):
    """A tree of path segments. A literal segment wins over a placeholder, whatever the HTTP method."""

    def __init__(self) -> None:
        self._literals: dict[str, Router[T]] = {}
        self._placeholder: Router[T] | None = None
        self._targets: dict[str, tuple[T, tuple[str, ...]]] = {}

    def add(self, http_method: str, template: str, target: T) -> None:
        """
        Add a route.

        Args:
            http_method: Such as ``GET``.
            template: Such as ``/skills/{name}/prompt``; a placeholder is a whole segment and never empty.
            target: What :meth:`find` returns for it.

        Raises:
            ValueError: The route is there already.
        """
        node, names = self, []
        for segment in template.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node._placeholder = node._placeholder or Router()
                node = node._placeholder
            else:
                node = node._literals.setdefault(segment, Router())
        if http_method in node._targets:
            raise ValueError(f"two routes for {http_method} {template}")
        node._targets[http_method] = (target, tuple(names))

    def find(self, path: str) -> Mapping[str, tuple[T, dict[str, str]]]:
        """
        Return what answers a path: by HTTP method, the target and the values of its placeholders.

        Args:
            path: As it stands in the request, still percent-encoded; the query is off.

        Returns:
            Empty if no route has this path.

        Raises:
            UnicodeDecodeError: A placeholder's value is not UTF-8.
        """
        segments = path.split("/")[1:]
        node, values = self._walk(segments, [])
        return {
            http_method: (target, dict(zip(names, map(_decode, values), strict=True)))
            for http_method, (target, names) in node._targets.items()
        }

    def _walk(self, segments: list[str], values: list[str]) -> tuple[Router[T], list[str]]:
        if not segments:
            return self, values
        first, rest = segments[0], segments[1:]
        # An encoded literal is the same path: unreserved characters may be encoded (RFC 3986, section 6.2.2.2).
        if (literal := self._literals.get(unquote(first))) is not None:
            node, found = literal._walk(rest, values)
            if node._targets:
                return node, found
        if self._placeholder is not None and first:
            return self._placeholder._walk(rest, [*values, first])
        return Router(), []


def _decode(segment: str) -> str:
    return unquote(segment, errors="strict")
