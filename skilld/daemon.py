"""
The life of the daemon: build the parts, serve until a signal, take them down in order.

Owns: every long-lived part, and the order in which they start and stop.

Source: API, sections 1 and 4; daemon(7), "New-Style Daemons".
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import skilld
from skilld import systemd
from skilld.config import NO_CACHE, Config, ConfigError, Effective
from skilld.factory.draft import Draft, fields_of
from skilld.factory.sessions import Sessions
from skilld.listener import Listener, SocketInUse
from skilld.rpc.access import AccessPolicy, build_policy
from skilld.rpc.dispatch import Dispatcher
from skilld.rpc.methods import TABLE
from skilld.rpc.methods.services import Services
from skilld.rpc.server import Server
from skilld.scripts.executor import Executor, check_settings
from skilld.scripts.kernel import hide_process
from skilld.skills.cache import cache_key, load_cache, save_cache
from skilld.skills.indexer import fill_index
from skilld.skills.registry import Registry
from skilld.skills.store import Store
from skilld.skills.watcher import Watcher
from skilld.tee.announcer import announce_skill_sets
from skilld.tee.service import Tee
from skilld.watchdog import feed_watchdog

log = logging.getLogger(__name__)

# The whole stop takes ten seconds at most; what is left is for the parts to end.
DRAIN_S = 9.5
# A thread that scans must not keep the event loop from the interpreter for longer than a request may take; Python's
# default of 5 ms is added to every wake-up of the loop while a scan runs.
SWITCH_INTERVAL_S = 0.0005
# Filling the index makes a hundred objects a skill that stay; at Python's default of 700 the collector takes a sixth
# of the time.
GC_THRESHOLDS = (20_000, 20, 20)

# Settings that a reload leaves alone: what is bound, opened or built once, or known of every skill that was scanned.
FIXED = ("socket", "cache_dir", "execution", "tee")
FIXED_LIMITS = ("skill_md_bytes", "skill_files", "skill_bytes", "skills", "depth", "changes")

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_IN_USE = 0, 1, 2, 3


async def serve(effective: Effective, reload: Callable[[], Effective]) -> int:
    """
    Serve until SIGTERM or SIGINT.

    Args:
        effective: The configuration.
        reload: Reads the configuration again; called at SIGHUP. May raise ConfigError.

    Returns:
        The exit code of ``skilld serve``: 0 clean end, 1 failure, 2 configuration, 3 socket in use.
    """
    # From the first moment: a daemon that is told to end while it starts leaves nothing behind.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    settings = effective.config
    # A script that got out of its sandbox would still be of our user.
    hide_process()
    # Every connection and every stream of a script is a descriptor: a process has 1,024 unless it asks for more.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # The first scan makes nothing but values that stay; _announce turns the collector on again.
    gc.disable()
    began = time.monotonic()
    listener: Listener | None = None
    try:
        check_settings(settings)
        bound = systemd.take_socket(os.environ, os.getpid())
        if bound is None:
            listener = Listener(settings.socket)
            bound = listener.socket
        address: str = listener.path if listener else bound.getsockname()
        policy = _policy(settings, address)
    except SocketInUse as exc:
        log.error("%s", exc)
        return EXIT_IN_USE
    except ConfigError as exc:
        log.error("%s", exc)
        if listener:
            listener.close()
        return EXIT_USAGE
    except ValueError as exc:
        log.error("cannot use the socket that was passed: %s", exc)
        return EXIT_FAILURE
    except OSError as exc:
        log.error("cannot open the socket %s: %s", settings.socket, exc)
        return EXIT_FAILURE
    log.info("skilld %s serves %s on %s", skilld.__version__, ", ".join(settings.skills_dir), address)

    registry = Registry(settings.skills_dir, limit_skills=settings.limits.skills, limit_changes=settings.limits.changes)
    watcher = Watcher(registry, settings)
    store = Store(registry, watcher)
    store.clean_up()
    executor = Executor(settings.execution)
    tee = Tee(settings.dstack_endpoint, settings.tee.timeout_s)
    services = Services(settings, registry, watcher, store, _make_sessions(settings, store), executor, tee, TABLE)
    if settings.cache_dir != NO_CACHE:
        cached = await asyncio.to_thread(load_cache, settings.cache_dir, _cache_key(services))
        if cached is not None:
            registry.remember(cached)
    server = Server(
        Dispatcher(TABLE, services, settings.limits), settings.limits, events=registry, health=watcher.ready.is_set,
        policy=policy, own_pid=os.getpid(),
    )  # fmt: skip
    services.connection_count = lambda: server.connections

    code = EXIT_OK
    # The parts that run for as long as the daemon does; one that ends by itself ends it.
    parts = {
        asyncio.create_task(watcher.run(), name="watcher"),
        asyncio.create_task(fill_index(registry, settings.limits.skill_md_bytes), name="indexer"),
        asyncio.create_task(_announce(services, began), name="announce"),
        asyncio.create_task(_cache_when_indexed(services), name="cache"),
        asyncio.create_task(feed_watchdog(address, lambda: watcher.is_alive), name="watchdog"),
        asyncio.create_task(_announce_skill_sets(services), name="skill-set events"),
        asyncio.create_task(_reload_when_told(hangup, reload, services, server, address), name="reload"),
    }
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await server.start(bound)
        done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            error = task.exception()
            log.error("%s ended by itself", task.get_name(), exc_info=error)
            code = EXIT_FAILURE
    finally:
        systemd.notify(os.environ, "STOPPING=1")
        log.info("stopping")
        executor.stop_queueing()
        services.draining.set()
        await server.close(DRAIN_S)
        await executor.close()
        await store.close()
        await services.sessions.close()
        await tee.close()
        for task in (*parts, stopping):
            task.cancel()
        await asyncio.gather(*parts, stopping, return_exceptions=True)
        await _save_cache(services)
        if listener:
            listener.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    return code


def _make_sessions(settings: Config, store: Store) -> Sessions:
    async def create(draft: Draft) -> Mapping[str, Any]:
        files = {"scripts": draft.scripts, "assets": draft.assets}
        skill = await store.create(draft.name, fields_of(draft), files)
        return skill.summary()

    return Sessions(
        create,
        store.is_taken,
        ttl_s=settings.factory.session_ttl_s,
        max_sessions=settings.factory.max_sessions,
    )


async def _announce(services: Services, began: float) -> None:
    """Say that the daemon is ready, once the first scan is done."""
    await services.watcher.ready.wait()
    # What was scanned lives as long as the daemon; the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    snapshot = services.registry.snapshot
    log.info(
        "ready: %d skills, %d problems, %.2f s", len(snapshot.skills), len(snapshot.problems), time.monotonic() - began
    )
    systemd.notify(os.environ, "READY=1")
    # Not before: it takes the scan's time, and a script that is wanted earlier begins it by itself.
    services.executor.begin()
    await asyncio.Event().wait()


async def _announce_skill_sets(services: Services) -> None:
    """Tell the TEE of every set of skills that is served, if that is wanted."""
    settings = services.settings.tee
    await services.watcher.ready.wait()
    if settings.skill_set_events:
        await announce_skill_sets(services.registry, services.tee, settings.skill_set_event_interval_s)
    await asyncio.Event().wait()


async def _cache_when_indexed(services: Services) -> None:
    """Save the cache once search knows every skill, so that a daemon that is killed later has not worked in vain."""
    await services.watcher.ready.wait()
    await services.registry.is_indexed.wait()
    await _save_cache(services)
    await asyncio.Event().wait()


async def _save_cache(services: Services) -> None:
    """Save what is known now, if it is whole and not saved yet; a disk that refuses costs only time."""
    registry, directory = services.registry, services.settings.cache_dir
    is_whole = services.watcher.ready.is_set() and registry.is_indexed.is_set()
    if directory == NO_CACHE or not is_whole or services.cached_revision == registry.snapshot.revision:
        return
    revision = registry.snapshot.revision
    entries = tuple(dict(known) for known in registry.entries)
    try:
        index_state = await asyncio.to_thread(registry.index.dump)
        # The dump is of one revision only if nothing changed meanwhile; else the end of the daemon saves it.
        if registry.snapshot.revision == revision:
            await asyncio.to_thread(save_cache, directory, _cache_key(services), entries, index_state)
            services.cached_revision = revision
    except OSError as exc:
        log.warning("the cache is not saved: %s", exc)
    except RuntimeError:  # the index changed under the dump's hands
        log.debug("the cache is not saved: the library is changing")


def _cache_key(services: Services) -> str:
    return cache_key(services.registry.roots, services.watcher.rescanner.limits)


async def _reload_when_told(
    hangup: asyncio.Event, read: Callable[[], Effective], services: Services, server: Server, address: str
) -> None:
    """At every SIGHUP, read the configuration again, scan everything, and tell systemd when that is done."""
    while True:
        await hangup.wait()
        hangup.clear()
        systemd.notify(os.environ, f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await _reload(read, services, server, address)
        # Who reloads before the first scan has ended is not ready yet.
        await services.watcher.ready.wait()
        await services.watcher.rescanner.drain(held_back=False)
        systemd.notify(os.environ, "READY=1")


async def _reload(read: Callable[[], Effective], services: Services, server: Server, address: str) -> None:
    """Read the configuration again and scan everything; a mistake in it changes nothing."""
    old = services.settings
    try:
        new, kept = _keep_fixed(read().config, old)
        # What scripts are shown stays, but roots and the workspace may have moved there.
        await asyncio.to_thread(check_settings, new)
        policy = _policy(new, address)
    except (ConfigError, OSError) as exc:
        log.error("the configuration stays as it is: %s", exc)
        new, kept, policy = old, [], server.policy
    if kept:
        log.warning("a new value of %s takes effect at the next start", ", ".join(kept))
    logging.getLogger().setLevel(new.log.level.upper())
    services.settings = new
    services.sessions.ttl_s, services.sessions.max_sessions = new.factory.session_ttl_s, new.factory.max_sessions
    services.tee.reconfigure(new.dstack_endpoint)
    server.reload(policy, new.limits)
    log.info("scanning everything again")
    services.watcher.reload(new)


def _keep_fixed(new: Config, old: Config) -> tuple[Config, list[str]]:
    """Give a configuration the old values of what only a start can change; also return the keys that differ."""
    fixed = {key: getattr(old, key) for key in FIXED}
    fixed_limits = {key: getattr(old.limits, key) for key in FIXED_LIMITS}
    kept = [key for key in fixed if getattr(new, key) != fixed[key]]
    kept += [f"limits.{key}" for key in fixed_limits if getattr(new.limits, key) != fixed_limits[key]]
    if new.log.format != old.log.format:
        kept.append("log.format")
    log_settings = replace(new.log, format=old.log.format)
    return replace(new, **fixed, log=log_settings, limits=replace(new.limits, **fixed_limits)), kept


def _policy(settings: Config, address: str) -> AccessPolicy:
    """Who has which role, by the settings and by the group that owns the socket now."""
    return build_policy(settings.access, daemon_uid=os.geteuid(), socket_gid=os.stat(address).st_gid)
