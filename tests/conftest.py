"""Rules for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support_stores import make_stores_quick

# Time is asserted nowhere: neither a slow machine nor a busy one makes a property false. The suite asks the same
# examples of the same code every time, so that what turns red is what was changed; `make fuzz` looks for what nobody
# thought of, and so does `--hypothesis-profile=search` here.
_TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, **_TIMELESS)
settings.register_profile("search", derandomize=False, print_blob=True, **_TIMELESS)
settings.load_profile("suite")

NO_SKIPS = os.environ.get("M2M_NO_SKIPS") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure here: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def _quick_stores() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_stores_quick(patch)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself counts as well."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With M2M_NO_SKIPS=1 a test that skips itself fails: on CI everything it could miss is installed."""
    report = yield
    _fail_if_skipped(report)
    return report
