"""A headless Chromium that tests control through its debugging pipe, without a library or a port."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

import pytest

SECONDS = 60  # to wait for an answer


def find_chromium():
    """The path of the program; without it, the test is skipped."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    return chromium


OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


class Chromium:
    """A process and one tab of it; a context manager.

    Attributes:
        events: (method, parameters) of what the tab has reported since `open`.
    """

    def __init__(self, profile):
        # Chromium reads commands from descriptor 3 and answers on 4, each ended by a zero byte.
        words = [find_chromium(), *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        )  # fmt: skip
        self.read, self.number, self.session, self.events = b"", 0, None, []

    def __enter__(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def call(self, method, **parameters):
        """The result of a command of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self.read:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 1 << 20) if ready else b""
            assert chunk, "Chromium has ended or does not answer"
            self.read += chunk
        line, _, self.read = self.read.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def open(self, page, *, width, height=800, scheme="light", media="screen"):
        """Load a page, a file or an address, in a window of this size, and wait until everything is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.call("Page.navigate", url=page if "://" in str(page) else f"file://{page}")
        while "Page.loadEventFired" not in dict(self.events):
            self._next()

    def evaluate(self, expression):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose(self, selector, file):
        """Choose a file in a field, as its dialog would."""
        field = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=field["objectId"])

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def press(self, key):
        """Press and release Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        how = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **how, **({"text": "\r"} if key == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **how)

    def click(self, selector):
        """Click into the middle of an element, which is scrolled to."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); return e.getBoundingClientRect().toJSON() }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left"}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, clickCount=1, **where)

    def complaints(self):
        """Errors and messages in the console, and requests but for the page itself and what it embeds."""
        found = []
        for method, what in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(what["exceptionDetails"]["text"])
            elif method == "Runtime.consoleAPICalled":
                found.append(f"console: {what['args']}")
            elif method == "Log.entryAdded":
                found.append(f"log: {what['entry']['text']}")
            elif method == "Network.requestWillBeSent" and what["type"] != "Document":
                url = what["request"]["url"]
                found += [f"request: {url}"] * (not url.startswith("data:"))
        return found

    def screenshot(self, path, *, whole=False):
        """Save what the window shows, or the whole page, as a PNG file."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def pdf(self, path):
        """Print the page into a file, with the rules for paper."""
        self.call("Emulation.setEmulatedMedia", media="print")
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))
