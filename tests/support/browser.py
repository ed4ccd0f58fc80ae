"""A real browser without a window."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import needs


def chromium() -> Any:
    """A Chromium that keeps what pages log; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    needs("chromium", "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1200"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def texts(browser: Any, selector: str) -> list[str]:
    """What the elements show, all at one moment: the page redraws itself."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
    found: list[str] = browser.execute_script(script, selector)
    return found


AXE = "axe-core@4.10.3"  # Deque's checker of what people with disabilities need; it is no part of this project


def axe(folder: Path) -> str:
    """The checker's source, from the package registry that npm is set up for; the test is skipped without it."""
    needs("npm")
    command = ["npm", "install", "--prefix", folder, "--no-save", "--no-audit", "--no-fund", "--prefer-offline", AXE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{AXE} could not be installed within a minute")
    if done.returncode:
        pytest.skip(f"{AXE} could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(browser: Any, source: str) -> list[str]:
    """What the checker finds wrong with the page that is open: the rule, and the first element that breaks it."""
    browser.execute_script(source)
    script = "axe.run().then((found) => arguments[0](found.violations))"
    found = browser.execute_async_script(script)
    return [
        f"{one['id']}: {json.dumps(one['nodes'][0]['target'])} {one['nodes'][0]['failureSummary']}" for one in found
    ]


@contextmanager
def seen_as(browser: Any, scheme: str = "light", width: int = 1400) -> Iterator[None]:
    """Shows pages in a colour scheme, on a screen of that width in CSS pixels."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
