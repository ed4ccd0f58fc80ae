"""A real browser without a window."""

import shutil
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
