"""
What both clients know about the methods: which ones only read, how long they may take, and calls made of several.

A call made of several is a generator: it yields requests and is sent their results, so that it does not matter
whether the client blocks.

Owns: nothing; values only.

Source: the interface of skilld, section 3.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, TypeVar

from skilld.client.errors import BadReply
from skilld.client.parse import parse
from skilld.client.protocol import Notification, OnNotification, Params
from skilld.client.results import FileContent, Listing, Summary, decode
from skilld.errors import Busy

T = TypeVar("T")
Steps: TypeAlias = Generator[tuple[str, dict[str, Any]], Any, T]

# A file of a skill: text, or any bytes.
Content: TypeAlias = str | bytes

# Called with "stdout" or "stderr" and what a script has written there.
OnOutput: TypeAlias = Callable[[str, bytes], None]


class NewFields(TypedDict, total=False):
    """What skills.create takes beside name, description and body; None counts as not given."""

    license: str | None
    compatibility: str | None
    metadata: Mapping[str, Any] | None
    allowed_tools: Sequence[str] | None
    scripts: Mapping[str, Content] | None
    references: Mapping[str, Content] | None
    assets: Mapping[str, Content] | None


class UpdateFields(TypedDict, total=False):
    """What skills.update takes beside the name; None counts as not given, but a file that is None is removed."""

    description: str | None
    body: str | None
    license: str | None
    compatibility: str | None
    metadata: Mapping[str, Any] | None
    allowed_tools: Sequence[str] | None
    scripts: Mapping[str, Content | None] | None
    references: Mapping[str, Content | None] | None
    assets: Mapping[str, Content | None] | None
    if_digest: str | None


# Seconds to wait for a reply. A daemon that just started answers after its first scan.
DEFAULT_TIMEOUT_S = 30.0

# Seconds that a subscription tries to get back to a daemon that went away.
RECONNECT_S = 60.0

# These may be sent again when the connection broke: doing them twice is doing them once.
ONLY_READS = frozenset(
    {
        "skills.list",
        "skills.search",
        "skills.get",
        "skills.read_file",
        "skills.validate",
        "skills.problems",
        "skills.prompt",
        "skills.activate",
        "skills.changes",
        "factory.check",
        "factory.get",
        "tee.info",
        "tee.verify",
        "tee.version",
        "skilld.ping",
        "skilld.status",
        "rpc.discover",
    }
)

# Milliseconds that a script may take where the call names no time, and that it has to end after SIGTERM.
SCRIPT_TIMEOUT_MS = 30_000
SCRIPT_GRACE_MS = 2_000

# Milliseconds that the guest agent of a TEE may take (tee.timeout_s); a quote may take seconds.
TEE_TIMEOUT_MS = 30_000

# As many skills as one reply of skills.list holds.
PAGE_SIZE = 1_000

# Times that a long list or file is begun again because it changed meanwhile.
TRIES = 100


def patience_s(method: str, params: Params) -> float:
    """
    Seconds that the daemon may take by the caller's own wish, or for the TEE's, beside the client's timeout.

    How long a script waits for its turn, and whether a receipt comes unasked, only the daemon knows.
    """
    given: Mapping[str, Any] = params if isinstance(params, Mapping) else {}
    waits = [given.get("sync_timeout_ms"), given.get("wait_ms")]
    if method == "skills.execute_script":
        waits += [given.get("timeout_ms") or SCRIPT_TIMEOUT_MS, SCRIPT_GRACE_MS]
    if (
        method.startswith("tee.")
        or method == "skills.attest"
        or (method == "skills.execute_script" and given.get("receipt"))
    ):
        waits.append(TEE_TIMEOUT_MS)
    # The daemon refuses what is no number; it need not be refused here.
    return sum(wait for wait in waits if isinstance(wait, int | float) and wait > 0) / 1000


def given(**params: Any) -> dict[str, Any]:
    """The params that are not None."""
    return {name: value for name, value in params.items() if value is not None}


def write_params(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The params of skills.create or skills.update: fields that are not None, files as JSON carries them."""
    params = given(**fields)
    for folder in ("scripts", "references", "assets"):
        if folder in params:
            params[folder] = {path: _file(content) for path, content in params[folder].items()}
    return params


def _file(content: Content | None) -> Any:
    return {"base64": base64.b64encode(content).decode()} if isinstance(content, bytes) else content


def list_skills(offset: int, limit: int | None, root: str | None, sync_timeout_ms: int | None) -> Steps[Listing]:
    """
    List skills over as many pages as it takes, all of one revision.

    Raises:
        Busy: They change faster than they can be listed.
    """
    for _ in range(TRIES):
        skills: list[Summary] = []
        page: Listing | None = None
        while True:
            wanted = PAGE_SIZE if limit is None else min(limit - len(skills), PAGE_SIZE)
            before = page
            page = parse(
                Listing,
                (
                    yield (
                        "skills.list",
                        given(offset=offset + len(skills), limit=wanted, root=root, sync_timeout_ms=sync_timeout_ms),
                    )
                ),
            )
            if before is not None and page.revision != before.revision:
                break
            skills += page.skills
            if not page.skills or len(skills) == limit or offset + len(skills) >= page.total:
                return Listing(tuple(skills), page.total, page.revision)
    raise Busy("the skills change faster than they can be listed")


def output_to(on_output: OnOutput) -> OnNotification:
    """What passes the output of a script on as it comes: "stdout" or "stderr", and bytes."""

    def on_notification(note: Notification) -> None:
        if note.method == "skills.output":
            params = note.params
            content = decode(str(params.get("data", "")), params.get("encoding"))
            on_output(str(params.get("stream")), content)

    return on_notification


def script_params(
    name: str, script: str, args: Sequence[str], stdin: Content | None, is_streaming: bool, **others: Any
) -> dict[str, Any]:
    """The params of skills.execute_script."""
    stream = True if is_streaming else None
    return given(name=name, script=script, args=[*args], stdin=_file(stdin), stream=stream, **others)


def read_file(name: str, path: str) -> Steps[bytes]:
    """
    Read a whole file, slice by slice; begun again when its size changes meanwhile.

    Raises:
        Busy: It changes faster than it can be read.
    """
    for _ in range(TRIES):
        data = b""
        size: int | None = None
        while True:
            part = parse(FileContent, (yield "skills.read_file", {"name": name, "path": path, "offset": len(data)}))
            if size not in (None, part.size):
                break
            size = part.size
            data += part.data
            if part.eof:
                return data
            if not part.content:
                raise BadReply(f"an empty slice of {path} before its end")
    raise Busy(f"{path} changes faster than it can be read")
