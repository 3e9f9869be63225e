"""A headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver), for tests of pages.

Debian and Ubuntu: `apt-get install chromium chromium-driver`. Tests that need it are not collected where it is not installed,
unless PTREE_BROWSER=1 says that it must be there.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
IS_THERE = CHROMIUM is not None and DRIVER is not None
MUST_BE_THERE = os.environ.get("PTREE_BROWSER") == "1"

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's name of a reference to an element
_KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "ArrowDown": "\ue015", "ArrowUp": "\ue013", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Tab": "\ue004", "End": "\ue010"}  # fmt: skip


class Browser:
    """One window; use it in `with`."""

    def __init__(self, folder):
        if not IS_THERE:
            raise RuntimeError("these tests need Chromium and its driver: apt-get install chromium chromium-driver")
        self._log = Path(folder) / "chromedriver.log"
        with self._log.open("wb") as log:
            self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=log, stderr=subprocess.STDOUT)
        try:
            self._address = f"http://127.0.0.1:{self._port()}"
            self._session = self._start(folder)
        except BaseException:
            self._driver.terminate()
            self._driver.wait(10)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)

    def _port(self):
        for _ in range(300):
            words = self._log.read_text().partition("started successfully on port ")[2]
            if "." in words:
                return int(words.partition(".")[0])
            time.sleep(0.1)
        raise RuntimeError(f"chromedriver did not start: {self._log.read_text()}")

    def _start(self, folder):
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--user-data-dir={folder}/profile"],
        }  # fmt: skip
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        return self._request("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def _call(self, method, path, body=None):
        return self._request(method, f"/session/{self._session}{path}", body)

    def open(self, page, at=""):
        """Open the page of a file, and wait until it says that it is ready."""
        self._call("POST", "/url", {"url": "about:blank"})
        self.log("performance"), self.log("browser")
        self._call("POST", "/url", {"url": Path(page).as_uri() + at})
        return self.wait("return document.documentElement.dataset.ready")

    def run(self, script, *arguments):
        """Run a script in the page, whose `return` is the result."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, *arguments):
        """Run a script until it gives something true."""
        for _ in range(200):
            value = self.run(script, *arguments)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the browser's messages: {self.log('browser')}")

    def log(self, kind):
        """The new messages: "browser" of the console, "performance" of the network and others."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": kind})]

    def requests(self):
        """The addresses that were asked for since the page was opened."""
        events = [json.loads(message)["message"] for message in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def find(self, selector):
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]

    def click(self, selector):
        """Click at an element as a person does: it must be in view and not covered."""
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def keys(self, *keys):
        """Press keys one after the other, each a character or a name such as "Enter", where the focus is."""
        actions = []
        for key in keys:
            value = _KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def resize(self, width, height):
        # the page's own size, which a window of a headless browser does not go below 500 pixels of
        self._cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme):
        """Let the system prefer a "dark" or a "light" scheme."""
        self._cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _cdp(self, command, **parameters):
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
