"""The order of the fork server, and its life."""

from __future__ import annotations

import json
import os
import signal

import pytest

from skilld.scripts.landlock import Launcher, order_of
from skilld.scripts.plan import Allowance, Host, Target, make_plan
from skilld.scripts.started import SetupFailed, Stdio

ALLOWANCE = Allowance(1, 2, 3, 4, 5, 6)


def test_the_order() -> None:
    """Paths with what may be done there; directories that are open by their place among the descriptors."""
    plan = make_plan(
        "landlock", Target("d", "scripts/a.sh", ("/bin/sh",)), ALLOWANCE, Host(work_dir="/w", tmp_dir="/t")
    )
    order = json.loads(json.dumps(order_of(plan, {"@skill": 5, "@work": 6, "@tmp": 7})))
    assert order["argv"] == ["/bin/sh", "scripts/a.sh"]
    assert (order["cwd"], order["landlock"], order["rlimits"]["NPROC"]) == (5, True, 2)
    assert order["paths"][0] == ["/usr", False, False]
    assert order["paths"][-3:] == [[5, False, False], [6, True, False], [7, True, False]]
    assert bytes.fromhex(order["seccomp"])
    none = order_of(make_plan("none", Target("d", "a", ("/x",)), ALLOWANCE, Host()), {"@skill": 5})
    assert (none["landlock"], none["seccomp"], none["paths"]) == (False, "", [])


async def test_a_fork_server_that_was_killed() -> None:
    """Takes no orders, says so, and can be closed."""
    launcher = Launcher()
    os.kill(launcher._process.pid, signal.SIGKILL)
    launcher._process.wait()
    assert not launcher.is_alive
    plan = make_plan("none", Target("d", "a", ("/bin/sh",)), ALLOWANCE, Host(work_dir="/", tmp_dir="/"))
    null = os.open(os.devnull, os.O_RDWR)
    directory = os.open("/", os.O_PATH)
    with pytest.raises(SetupFailed):
        await (await launcher.start(plan, Stdio(null, null, null), {"@skill": directory})).wait()
    os.close(null)
    os.close(directory)
    await launcher.close()
