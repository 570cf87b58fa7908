"""What a test run says at its end of the things that it could not try: aloud, for a skipped attack proves nothing."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the units' tests that did not run, the sandboxes that are missing, and the attacks without a target."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in skipped if report.nodeid.startswith("tests/systemd/")
    )
    for reason, count in reasons.items():
        terminalreporter.line(f"{count} tests of the systemd units did NOT run: {reason}", red=True)
    if not any(
        getattr(report, "nodeid", "").startswith("tests/redteam/")
        for reports in terminalreporter.stats.values()
        for report in reports
    ):
        return
    from tests.redteam import rungs
    from tests.redteam.conftest import USERS

    missing = {rung: why for rung in rungs.RUNGS if (why := rungs.why_not(rung))}
    offered = [rung for rung in rungs.RUNGS if rung not in missing]
    terminalreporter.write_line(f"sandboxes attacked: {', '.join(offered) or 'none'} as {', '.join(USERS)}")
    if count := sum("nothing to attack" in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(f"attacks that this machine has nothing for: {count}")
    for rung, why in missing.items():
        terminalreporter.write_line(f"SANDBOX MISSING: {rung}: {why}", red=True)
