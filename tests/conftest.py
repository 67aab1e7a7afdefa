"In CI nothing may be skipped: everything that a test needs is there."
import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    if os.environ.get('CI') and reporter and reporter.stats.get('skipped') and not exitstatus:
        reporter.write_line('\nCI is set, and tests were skipped: that is a failure')
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
