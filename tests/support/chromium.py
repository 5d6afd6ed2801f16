"""A real Chromium that looks at a page and does what a reader does with it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1500")
_IDLE = "const items = document.getElementById('items'); return !items || items.ariaBusy === 'false'"


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver; the test is skipped where there is none."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium or its driver is not here; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not here; pip install -e '.[dev]'")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a reader does with a page."""

    def __init__(self, driver: Any, path: Path, address: str = ""):
        self.driver = driver
        driver.get("about:blank")  # the same file with another fragment would not be loaded again
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(path.as_uri() + address)
        self.wait()

    def script(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def wait(self, condition: str = _IDLE) -> None:
        """Until the questions are drawn, or the condition holds."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: self.script(condition))

    def choose(self, name: str, text: str) -> None:
        """Choose the option with this text in the select that has this id or name."""
        self.script(
            "const s = document.getElementById(arguments[0]) ?? document.getElementsByName(arguments[0])[0];"
            "s.value = [...s.options].find((o) => o.textContent === arguments[1]).value;"
            "s.dispatchEvent(new Event('change', {bubbles: true}));",
            name,
            text,
        )
        self.wait()

    def show(self, *runs: str) -> None:
        """Show these runs alone."""
        self.script(
            "const boxes = [...document.getElementsByName('shown')];"
            "for (const b of boxes) b.checked = arguments[0].includes(b.value);"
            "boxes[0].dispatchEvent(new Event('change', {bubbles: true}));",
            runs,
        )
        self.wait()

    def enter(self, name: str, text: str) -> None:
        """Put a text into a field; the page waits until the typing has paused."""
        drawn = self.script("return performance.getEntriesByName('list drawn').length")
        self.script(
            "const t = document.getElementById(arguments[0]); t.value = arguments[1];"
            "t.dispatchEvent(new Event('input', {bubbles: true}));",
            name,
            text,
        )
        self.wait(f"return performance.getEntriesByName('list drawn').length > {drawn}")

    def click(self, name: str) -> None:
        self.script("document.getElementById(arguments[0]).click()", name)
        self.wait()

    def press(self, *keys: str) -> None:
        """Press keys one after the other, where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
            self.wait()

    def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    @property
    def shown(self) -> str:
        return self.script("return document.getElementById('shown').textContent")

    @property
    def hash(self) -> str:
        return self.script("return location.hash")

    def texts(self, selector: str) -> list[str]:
        return self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def count(self, selector: str) -> int:
        return self.script("return document.querySelectorAll(arguments[0]).length", selector)

    def requests(self) -> list[str]:
        """Addresses that the page asked for, without those that carry their data with them."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in addresses if not url.startswith(("data:", "about:"))]
