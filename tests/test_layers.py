"""The import order: who may know whom, which modules are pure, where each third-party package is at home."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import skilld

PACKAGE_DIR = Path(skilld.__file__).parent

# What each part of the package may import of the package; the longest name that fits a module counts. A part that is
# missing here has no place in the order yet: give it one.
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "skilld": (),
    "skilld.errors": (),
    "skilld.config": ("skilld.errors",),
    "skilld.systemd": (),
    "skilld.listener": (),
    "skilld.watchdog": ("skilld.systemd",),
    "skilld.skills": ("skilld", "skilld.errors", "skilld.config", "skilld.skills"),
    "skilld.skills.model": (),
    "skilld.skills.digest": (),
    "skilld.skills.lenient_yaml": ("skilld.skills.model",),
    "skilld.skills.frontmatter": ("skilld.skills.lenient_yaml", "skilld.skills.model"),
    "skilld.skills.files": ("skilld.skills.digest", "skilld.skills.model"),
    "skilld.skills.scanner": (
        "skilld.skills.files",
        "skilld.skills.frontmatter",
        "skilld.skills.lenient_yaml",
        "skilld.skills.model",
    ),
    "skilld.factory": ("skilld.errors", "skilld.config", "skilld.skills.model", "skilld.skills.edit", "skilld.factory"),
    "skilld.scripts": ("skilld.errors", "skilld.config", "skilld.skills", "skilld.scripts"),
    "skilld.tee": ("skilld.errors", "skilld.config", "skilld.skills", "skilld.tee"),
    "skilld.rpc": ("skilld", "skilld.errors", "skilld.config", "skilld.rpc"),
    "skilld.rpc.methods": (
        "skilld",
        "skilld.errors",
        "skilld.config",
        "skilld.skills",
        "skilld.factory",
        "skilld.scripts",
        "skilld.tee",
        "skilld.rpc",
    ),
    "skilld.scripts.launcher": (),
    "skilld.scripts.probe": (),
    "skilld.client": ("skilld", "skilld.errors", "skilld.client"),
    "skilld.daemon": (
        "skilld",
        "skilld.errors",
        "skilld.config",
        "skilld.systemd",
        "skilld.listener",
        "skilld.watchdog",
        "skilld.skills",
        "skilld.factory",
        "skilld.scripts",
        "skilld.tee",
        "skilld.rpc",
    ),
    "skilld.cli": (
        "skilld",
        "skilld.errors",
        "skilld.config",
        "skilld.skills",
        "skilld.tee",
        "skilld.client",
        "skilld.daemon",
        "skilld.cli",
    ),
    "skilld.__main__": ("skilld.cli",),
}

# Modules that take and return values: a name stands for itself and all below it.
PURE = (
    "skilld.errors",
    "skilld.config",
    "skilld.skills.model",
    "skilld.skills.lenient_yaml",
    "skilld.skills.frontmatter",
    "skilld.skills.digest",
    "skilld.skills.edit",
    "skilld.skills.splicing",
    "skilld.skills.yaml_spans",
    "skilld.skills.prompt",
    "skilld.skills.search",
    "skilld.skills.ranking",
    "skilld.skills.snippet",
    "skilld.skills.spelling",
    "skilld.skills.tokens",
    "skilld.factory",
    "skilld.scripts.capture",
    "skilld.scripts.interpreters",
    "skilld.scripts.plan",
    "skilld.scripts.seccomp",
    "skilld.scripts.syscalls",
    "skilld.tee.attestation_checks",
    "skilld.tee.canonical",
    "skilld.tee.chain",
    "skilld.tee.checks",
    "skilld.tee.event_log",
    "skilld.tee.keccak",
    "skilld.tee.receipt_checks",
    "skilld.tee.secp256k1",
    "skilld.tee.signature",
    "skilld.tee.tdx_quote",
    "skilld.rpc.params",
    "skilld.rpc.jsontext",
    "skilld.rpc.routes",
)
NOT_PURE = ("skilld.factory.sessions",)

# What reaches a socket, a clock, a log, a file, another process or another thread.
EDGES = frozenset(
    "_thread asyncio codecs concurrent ctypes fcntl fileinput getpass glob grp http importlib input io linecache "
    "locale logging mmap multiprocessing open os pathlib pickle platform print pwd queue random resource sched secrets "
    "select selectors shelve shutil signal smtplib socket socketserver sqlite3 ssl stat subprocess sys syslog tempfile "
    "termios threading time tty urllib.request uuid".split()
)
BUILT_IN_EDGES = ("open", "print", "input")

# Where each third-party package is at home.
HOMES: Mapping[str, tuple[str, ...]] = {
    "click": ("skilld.cli",),
    "cryptography": ("skilld.tee.signature",),
    "dcap_qvl": ("skilld.tee.vendor",),
    "dstack_sdk": ("skilld.tee.sdk", "skilld.tee.service"),
    "httptools": ("skilld.rpc.http",),
    "httpx": ("skilld.tee.sdk",),
    "jsonrpcserver": ("skilld.rpc.dispatch",),
    "numpy": ("skilld.skills.ranking",),
    "orjson": ("skilld.rpc.jsontext",),
    "pydantic": ("skilld.tee.sdk",),
    "rich": ("skilld.cli",),
    "watchfiles": ("skilld.skills.event_source",),
    "yaml": ("skilld.config", "skilld.skills.lenient_yaml", "skilld.skills.yaml_spans"),
}


@dataclass(frozen=True)
class Import:
    """One import: in which module and line, of what. ``for_types`` says that it does not happen at run time."""

    module: str
    line: int
    name: str
    for_types: bool = False

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def sources() -> dict[str, str]:
    """The text of every module of the package by its dotted name; a package's is that of its __init__."""
    found = {}
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        parts = path.relative_to(PACKAGE_DIR.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports_in(texts: Mapping[str, str]) -> list[Import]:
    """Every import of every module, those inside functions too; a call of a built-in edge counts as an import of it."""
    return [found for module, text in texts.items() for found in _imports_of(module, ast.parse(text), texts)]


def _imports_of(module: str, tree: ast.AST, modules: Iterable[str], for_types: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                # "from package import module" imports the module.
                full = f"{source}.{alias.name}"
                yield Import(module, node.lineno, full if full in modules else source, for_types)
        else:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILT_IN_EDGES:
                yield Import(module, node.lineno, node.func.id)
            is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from _imports_of(module, node, modules, for_types or is_typing)


def is_part(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def wrong_order(imports: Iterable[Import]) -> list[str]:
    """Imports of the package that the order does not allow; those for types count too."""
    wrong = []
    for found in imports:
        if not is_part(found.name, "skilld") and not found.name.startswith("."):
            continue
        owners = [
            part for part in ALLOWED if is_part(found.module, part) and (part != "skilld" or found.module == part)
        ]
        if not owners:
            wrong.append(f"{found}, and has no place in the order")
            continue
        # "skilld" itself allows the package's version, not all of it.
        allowed = ALLOWED[max(owners, key=len)]
        if not any(found.name == part or (part != "skilld" and is_part(found.name, part)) for part in allowed):
            wrong.append(str(found))
    return wrong


def impure(imports: Iterable[Import]) -> list[str]:
    """Imports of pure modules that reach the outside."""
    return [
        str(found)
        for found in imports
        if any(is_part(found.module, part) for part in PURE)
        and found.module not in NOT_PURE
        and any(is_part(found.name, edge) for edge in EDGES)
    ]


def homeless(imports: Iterable[Import]) -> list[str]:
    """Imports of third-party packages away from their home, or without one."""
    return [
        str(found)
        for found in imports
        if (package := found.name.split(".")[0]) not in sys.stdlib_module_names | {"skilld", "", *BUILT_IN_EDGES}
        and not any(is_part(found.module, home) for home in HOMES.get(package, ()))
    ]


def cycles(imports: Iterable[Import]) -> list[str]:
    """Chains of imports at run time that end where they began, each once."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        if is_part(found.name, "skilld") and not found.for_types:
            graph.setdefault(found.module, set()).add(found.name)
    chains: list[str] = []
    finished: set[str] = set()

    def walk(module: str, chain: tuple[str, ...]) -> None:
        if module in chain:
            chains.append(" -> ".join((*chain[chain.index(module) :], module)))
            return
        if module not in finished:
            for name in sorted(graph.get(module, ())):
                walk(name, (*chain, module))
            finished.add(module)

    for module in sorted(graph):
        walk(module, ())
    return chains


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return imports_in(sources())


def test_the_import_order_holds(imports: list[Import]) -> None:
    """No part of the package knows one that it must not know."""
    assert wrong_order(imports) == []


def test_pure_modules_touch_nothing_outside(imports: list[Import]) -> None:
    """Values in, values out: no socket, clock, log, file, process or thread."""
    assert impure(imports) == []


def test_every_third_party_package_has_one_home(imports: list[Import]) -> None:
    """One module, or one part, knows it; a new one is entered here."""
    assert homeless(imports) == []


def test_no_imports_form_a_circle(imports: list[Import]) -> None:
    """What is needed for types alone may."""
    assert cycles(imports) == []


def test_everything_is_looked_at(imports: list[Import]) -> None:
    """The check reads the whole package."""
    texts = sources()
    assert {"skilld", *PURE, *NOT_PURE, *HOMES["yaml"]} <= set(texts)
    assert {found.module for found in imports} <= set(texts)
    assert Import("skilld.config", next(f.line for f in imports if f.name == "yaml"), "yaml") in imports


@pytest.mark.parametrize(
    ("module", "text", "check", "expected"),
    [
        (
            "skilld.skills.scanner",
            "from skilld.rpc import params",
            wrong_order,
            "skilld.skills.scanner:1 imports skilld.rpc.params",
        ),
        (
            "skilld.skills.scanner",
            "\nimport skilld.daemon",
            wrong_order,
            "skilld.skills.scanner:2 imports skilld.daemon",
        ),
        (
            "skilld.skills.new",
            "def f():\n  from skilld import daemon",
            wrong_order,
            "skilld.skills.new:2 imports skilld.daemon",
        ),
        ("skilld.skills.new", "from skilld import __version__", wrong_order, None),
        ("skilld.skills.new", "from .model import Skill", wrong_order, "skilld.skills.new:1 imports .model"),
        (
            "skilld.skills.model",
            "from skilld.errors import quote",
            wrong_order,
            "skilld.skills.model:1 imports skilld.errors",
        ),
        (
            "skilld.rpc.site",
            "from skilld.skills.model import Skill",
            wrong_order,
            "skilld.rpc.site:1 imports skilld.skills.model",
        ),
        ("skilld.rpc.methods.skills", "from skilld.skills.model import Skill", wrong_order, None),
        ("skilld.errors", "import skilld", wrong_order, "skilld.errors:1 imports skilld"),
        (
            "skilld.factory.x",
            "if TYPE_CHECKING:\n  import skilld.rpc",
            wrong_order,
            "skilld.factory.x:2 imports skilld.rpc",
        ),
        (
            "skilld.novel",
            "import skilld.errors",
            wrong_order,
            "skilld.novel:1 imports skilld.errors, and has no place in the order",
        ),
        ("skilld.skills.model", "import os", impure, "skilld.skills.model:1 imports os"),
        ("skilld.skills.search", "from os.path import join", impure, "skilld.skills.search:1 imports os.path"),
        ("skilld.factory.draft", "def f():\n  import time", impure, "skilld.factory.draft:2 imports time"),
        ("skilld.factory.sessions", "import time", impure, None),
        ("skilld.skills.scanner", "import os", impure, None),
        ("skilld.errors", "import asyncio.events as a", impure, "skilld.errors:1 imports asyncio.events"),
        ("skilld.config", "import datetime, math, hashlib", impure, None),
        ("skilld.config", "x = len(open('f').read())", impure, "skilld.config:1 imports open"),
        ("skilld.skills.scanner", "import yaml", homeless, "skilld.skills.scanner:1 imports yaml"),
        ("skilld.config", "import yaml.loader", homeless, None),
        ("skilld.rpc.http", "from orjson import dumps", homeless, "skilld.rpc.http:1 imports orjson"),
        ("skilld.cli.show", "import click", homeless, None),
        ("skilld.daemon", "import uvloop", homeless, "skilld.daemon:1 imports uvloop"),
        (
            "skilld.errors",
            "import skilld.skills.model",
            cycles,
            "skilld.errors -> skilld.skills.model -> skilld.errors",
        ),
        ("skilld.errors", "if TYPE_CHECKING:\n  import skilld.skills.model", cycles, None),
        ("skilld.errors", "import skilld.errors", cycles, "skilld.errors -> skilld.errors"),
    ],
)
def test_a_planted_violation_is_found(module: str, text: str, check: object, expected: str | None) -> None:
    """With module and line, or the chain; what is allowed is not reported."""
    texts = {
        "skilld.daemon": "",
        "skilld.rpc.params": "",
        "skilld.skills.model": "from skilld.errors import quote",
        module: text,
    }
    assert callable(check)
    found = [line for line in check(imports_in(texts)) if line.startswith(module)]
    assert found == ([expected] if expected else [])
