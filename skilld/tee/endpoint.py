"""
Where the guest agent is, and whether anything can be asked of it.

The order is that of dstack's SDKs; it is repeated here because ``skilld.status`` names the endpoint without loading the
SDK, and because the SDK takes an empty DSTACK_SIMULATOR_ENDPOINT for an address.

Owns: nothing. Looks at the environment's paths.

Source: dstack-sdk 0.5.4, ``get_endpoint``.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Mapping

from skilld.errors import TeeUnavailable, quote

SDK = "dstack_sdk"
SIMULATOR_VARIABLE = "DSTACK_SIMULATOR_ENDPOINT"
SOCKET_PATHS = (
    "/var/run/dstack.sock",
    "/run/dstack.sock",
    "/var/run/dstack/dstack.sock",
    "/run/dstack/dstack.sock",
)

INSTALL_HINT = "dstack's SDK is not installed; install skilld[tee]"


def find_endpoint(configured: str, environ: Mapping[str, str]) -> str:
    """
    Return the guest agent's path or URL: the configured one, DSTACK_SIMULATOR_ENDPOINT, the first path that is there.

    Where none is there, it is the first path: what is missing should be named.
    """
    simulator = environ.get(SIMULATOR_VARIABLE)
    return configured or simulator or next(filter(os.path.exists, SOCKET_PATHS), SOCKET_PATHS[0])


def is_url(endpoint: str) -> bool:
    """Whether an endpoint is reached by TCP."""
    return endpoint.startswith(("http://", "https://"))


def is_available(endpoint: str) -> bool:
    """Whether the SDK is installed and the endpoint is there; the guest agent is not asked."""
    try:
        check_available(endpoint)
    except TeeUnavailable:
        return False
    return True


def check_available(endpoint: str) -> None:
    """
    Make sure that the guest agent can be asked at all.

    Raises:
        TeeUnavailable: The SDK is not installed, or there is no socket at the path; says what to do.
    """
    if importlib.util.find_spec(SDK) is None:
        raise TeeUnavailable(endpoint, INSTALL_HINT)
    if is_url(endpoint):
        return
    try:
        mode = os.stat(endpoint).st_mode
    except FileNotFoundError:
        hint = f"there is no guest agent at {quote(endpoint)}; is this a dstack CVM?"
        raise TeeUnavailable(endpoint, hint) from None
    except (OSError, ValueError) as exc:
        raise TeeUnavailable(endpoint, f"{quote(endpoint)}: {exc}") from None
    if not stat.S_ISSOCK(mode):
        raise TeeUnavailable(endpoint, f"{quote(endpoint)} is no socket")
