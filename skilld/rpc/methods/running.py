"""
The method that runs a script of a skill.

Owns: nothing; the executor runs, and a caller who goes away ends what runs for it.

Source: API, section 3, ``skills.execute_script``; execve(2), "Limits on size of arguments and environment".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

from skilld.config import KIB, MIB
from skilld.errors import (
    Busy,
    FileNotFound,
    InvalidParams,
    SandboxUnavailable,
    ScriptDependencies,
    ScriptUnsupported,
    ShuttingDown,
    SkillNotFound,
    quote,
)
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context, Services
from skilld.rpc.methods.tee import TEE_ERRORS
from skilld.rpc.params import Param, array_of, base64_text, boolean, integer, mapping_of, record, text, text_or
from skilld.scripts.capture import TextChunks
from skilld.scripts.executor import Wish
from skilld.scripts.fairqueue import Client
from skilld.scripts.opening import OpenScript, Stale, open_script
from skilld.scripts.outcome import Outcome
from skilld.scripts.plan import VARIABLES
from skilld.scripts.runner import OnOutput
from skilld.tee.endpoint import check_available
from skilld.tee.receipts import make_statement, sign_statement

TIMEOUT_MS, LONGEST_MS = 30_000, 600_000
# The kernel takes 128 KiB an argument (MAX_ARG_STRLEN), and a quarter of the stack's limit for all of them.
ARGS, ARG_BYTES, ARGS_BYTES = 256, 128 * KIB - 1, 512 * KIB
VARIABLES_COUNT, VARIABLES_BYTES = 64, 32 * KIB
STDIN_BYTES = 8 * MIB
PART_BYTES = 255

# Variables that make an interpreter, the dynamic linker or a library that most programs hold load something else, and
# those that are ours to set.
_REFUSED = frozenset(
    {
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "LOCPATH",
        "OPENSSL_CONF",
        "OPENSSL_ENGINES",
        "OPENSSL_MODULES",
        "BASH_ENV",
        "ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "IFS",
        "PS4",
        "NODE_OPTIONS",
        "NODE_PATH",
        *VARIABLES,
    }
)
_REFUSED_STARTS = ("LD_", "PYTHON", "PERL", "RUBY", "DSTACK_", "SKILL", "BASH_FUNC_")

# Times that a skill which is being changed is looked at again, some milliseconds each: until its script can be opened,
# until all of it is as it was indexed (files beside the script may be changing for as long as they like), and until it
# stays in its place while the sandbox is made.
OPEN_TRIES, DIGEST_TRIES, RUN_TRIES = 20, 5, 20


async def execute_script(
    context: Context,
    /,
    *,
    name: str,
    script: str,
    args: list[str] | None,
    env: Mapping[str, str] | None,
    stdin: str | Mapping[str, bytes] | None,
    timeout_ms: int,
    receipt: bool | None,
    stream: bool | None,
    explain: bool | None,
) -> dict[str, Any]:
    """Run a script of a skill in the sandbox, and wait for it to end."""
    services = context.services
    path = check_script(script)
    wish = Wish(_check_args(args or []), _check_env(env or {}), _bytes(stdin), timeout_ms / 1000)
    if stream and context.connection is None:
        raise InvalidParams("stream", "needs a connection of JSON lines")
    signs = bool(receipt) or services.settings.receipts
    if signs and not explain:
        # Before the script runs: whoever wants a receipt has no use for a result without one.
        check_available(services.tee.endpoint)
    with context.hangup.cancels_this():
        await services.sync(None)
        for _ in range(RUN_TRIES):
            with contextlib.suppress(Stale):
                return await _execute(
                    context, name, path, wish, signs=signs, stream=bool(stream), explain=bool(explain)
                )
    raise Busy(f"{path!r} of skill {name!r} is being written")


async def _execute(
    context: Context, name: str, script: str, wish: Wish, *, signs: bool, stream: bool, explain: bool
) -> dict[str, Any]:
    """Open a script, run it and let it go; raises Stale where it was changed before it ran."""
    services = context.services
    opened = await open_current(services, name, script)
    try:
        snapshot = services.registry.snapshot
        if signs and snapshot.skills.get(opened.skill.id) is not opened.skill:
            raise Stale  # the receipt names a set of skills, and this one must be of it
        if explain:
            return {"plan": (await services.executor.explain(opened, wish)).to_json()}
        # Without an id nobody could tell whose output it is.
        on_output, finish = _streaming(context) if stream and not context.is_notification else (None, None)
        client = Client(context.peer.uid, context.peer.pid)
        outcome = await services.executor.run(opened, wish, client=client, exact=signs, on_output=on_output)
        if finish is not None:
            await finish()
    finally:
        is_in_place = opened.is_in_place()
        opened.close()
        if not is_in_place:
            services.store.clean_up_after(opened.skill.root)
    if not signs:
        return outcome.to_json()
    statement = _statement(outcome, snapshot.digest)
    receipt = await sign_statement(services.tee, statement, services.settings.tee.receipt_algorithm)
    return {**outcome.to_json(), "receipt": receipt}


def _statement(outcome: Outcome, registry_digest: str) -> str:
    """What a receipt says of a run."""
    ended = outcome.ended
    return make_statement(
        skill=outcome.skill,
        skill_digest=outcome.skill_digest,
        registry_digest=registry_digest,
        script=outcome.script,
        args=outcome.args,
        env=outcome.variables,
        stdin_sha256=outcome.stdin_sha256,
        stdout_sha256=ended.stdout.sha256,
        stderr_sha256=ended.stderr.sha256,
        exit_code=ended.exit_code,
        timed_out=ended.timed_out,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
    )


def check_script(script: str) -> str:
    """
    Return the path of a script relative to its skill, with the folder in front.

    Raises:
        InvalidParams: It can be none.
    """
    parts = script.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidParams("script", f"must be a relative path without empty, '.' or '..' parts: {quote(script)}")
    if re.search("[\x00-\x1f\x7f]", script):
        raise InvalidParams("script", f"must not hold control characters: {quote(script)}")
    if any(part.startswith("-") for part in parts):
        raise InvalidParams("script", f"no part of it must begin with a hyphen: {quote(script)}")
    try:
        if any(len(part.encode()) > PART_BYTES for part in parts):
            raise InvalidParams("script", f"no part of it must be longer than {PART_BYTES} bytes: {quote(script)}")
    except UnicodeEncodeError:
        raise InvalidParams("script", f"must be UTF-8: {quote(script)}") from None
    return script if parts[0] == "scripts" and len(parts) > 1 else f"scripts/{script}"


async def open_current(services: Services, name: str, script: str) -> OpenScript:
    """
    Open a script as the registry knows it; what was changed just now is indexed first.

    Raises:
        SkillNotFound, FileNotFound: There is none.
        Busy: It is being written again and again.
    """
    for tries in range(1, OPEN_TRIES + 1):
        registry, limits = services.registry, services.settings.limits
        skill = registry.snapshot.find(name)
        known = registry.entries[registry.roots.index(skill.root)][skill.id].files
        try:
            opened = await _in_thread(skill, script, known, limits.skill_files, limits.skill_bytes)
            if opened.digest is not None or skill.digest is None or tries >= DIGEST_TRIES:
                return opened
            opened.close()
        except Stale:
            pass
        await services.watcher.refresh(skill.root, skill.id)
    raise Busy(f"{script!r} of skill {name!r} is being written")


async def _in_thread(*args: Any) -> OpenScript:
    """Open in a thread; what a cancelled caller leaves open is closed."""
    opening = asyncio.get_running_loop().run_in_executor(None, open_script, *args)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[OpenScript]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _streaming(context: Context) -> tuple[OnOutput, Any]:
    """What sends output as ``skills.output`` notifications, and what sends the rest at the end."""
    connection = context.connection
    assert connection is not None
    chunks = {"stdout": TextChunks(), "stderr": TextChunks()}
    seq = 0

    async def send(stream: str, content: tuple[str, str] | None) -> None:
        nonlocal seq
        if content is not None:
            data, encoding = content
            params = {
                "request_id": context.request_id,
                "stream": stream,
                "seq": seq,
                "data": data,
                "encoding": encoding,
            }
            seq += 1
            await connection.notify("skills.output", {**params, "encoding": encoding})

    async def on_output(stream: str, data: bytes) -> None:
        await send(stream, chunks[stream].add(data))

    async def finish() -> None:
        for stream, rest in chunks.items():
            await send(stream, rest.rest())

    return on_output, finish


def _bytes(stdin: str | Mapping[str, bytes] | None) -> bytes | None:
    if stdin is None:
        return None
    content = _encoded("stdin", stdin) if isinstance(stdin, str) else stdin["base64"]
    if len(content) > STDIN_BYTES:
        raise InvalidParams("stdin", f"must be of at most {STDIN_BYTES} bytes, not {len(content)}")
    return content


def _check_args(args: list[str]) -> tuple[str, ...]:
    total = 0
    for number, arg in enumerate(args):
        size = len(_encoded("args", arg))
        if "\0" in arg:
            raise InvalidParams("args", f"item {number} must not hold NUL: {quote(arg)}")
        if size > ARG_BYTES:
            raise InvalidParams("args", f"item {number} must be of at most {ARG_BYTES} bytes, not {size}")
        total += size + 1
    if total > ARGS_BYTES:
        raise InvalidParams("args", f"must be of at most {ARGS_BYTES} bytes together, not {total}")
    return tuple(args)


def _check_env(env: Mapping[str, str]) -> Mapping[str, str]:
    total = 0
    for name, value in env.items():
        # The value may be a secret, and messages are logged.
        if name in _REFUSED or name.startswith(_REFUSED_STARTS):
            raise InvalidParams("env", f"{quote(name)} is not for callers to set")
        if "\0" in value:
            raise InvalidParams("env", f"the value of {quote(name)} must not hold NUL")
        total += len(name) + len(_encoded("env", value, f"the value of {quote(name)}")) + 2
    if total > VARIABLES_BYTES:
        raise InvalidParams("env", f"must be of at most {VARIABLES_BYTES} bytes together, not {total}")
    return env


def _encoded(field: str, value: str, what: str = "") -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidParams(field, f"{what or 'it'} must be UTF-8") from None


METHODS = (
    Method(
        "skills.execute_script",
        "run",
        (
            Param(
                "name", text(min_chars=1, max_chars=4_096), required=True, doc="An id, or a name that one skill bears."
            ),
            Param(
                "script", text(min_chars=1, max_chars=4_096), required=True, doc="scripts/run.py, or shorter run.py."
            ),
            Param("args", array_of(text(), ARGS), required=False, doc="Arguments; no shell sees them."),
            Param(
                "env",
                mapping_of(
                    text(),
                    max_items=VARIABLES_COUNT,
                    keys=text(max_chars=256, pattern="[A-Za-z_][A-Za-z0-9_]*", rule="a name of a variable"),
                ),
                required=False,
                doc="Variables beside the sandbox's own.",
            ),
            Param(
                "stdin",
                text_or(text(), record(base64=base64_text(max_bytes=STDIN_BYTES))),
                required=False,
                doc="What the script reads: text, or an object with base64; nothing without it.",
            ),
            Param(
                "timeout_ms",
                integer(1, LONGEST_MS),
                required=False,
                default=TIMEOUT_MS,
                doc="Milliseconds; then SIGTERM, 2 s later SIGKILL.",
            ),
            Param("receipt", boolean(), required=False, doc="Sign what was run and what came out."),
            Param(
                "stream",
                boolean(),
                required=False,
                doc="Send the output as skills.output notifications as it comes; JSON lines only.",
            ),
            Param("explain", boolean(), required=False, doc="Run nothing; return the plan of the sandbox."),
        ),
        execute_script,
        {"anyOf": [schemas.RUN_RESULT, schemas.PLAN]},
        ("POST", "/skills/{name}/scripts/{script}"),
        errors=(
            SkillNotFound,
            FileNotFound,
            SandboxUnavailable,
            ScriptUnsupported,
            ScriptDependencies,
            ShuttingDown,
            *TEE_ERRORS,
        ),
    ),
)
