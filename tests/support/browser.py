"""A headless Chromium over its debugging pipe: pages, what they log, what they fetch, and pictures of them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0
PIPED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Gives a browser its pipes where it looks for them: it reads from 3 and writes to 4."""


def executable() -> str | None:
    """Return the path of a Chromium, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab; `events` are all that the browser told of it."""

    def __init__(self, into: int, out_of: int) -> None:
        self.into, self.out_of = into, out_of
        self.events: list[dict[str, Any]] = []
        self.count, self.session, self.rest = 0, "", b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command; raise AssertionError where the browser refuses it."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = os.read(self.out_of, 1 << 20)
            assert data, "the browser ended"
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page in a window of a size, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        end = time.monotonic() + SECONDS
        while self.do("document.readyState + location.href") != f"complete{url}":
            assert time.monotonic() < end, f"{url} did not load"
            time.sleep(0.02)

    def do(self, script: str) -> Any:
        """Return the value of a script in the page; raise AssertionError where it throws."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Return the errors and warnings of the pages so far."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds or (
            event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))]

    def requests(self) -> list[str]:
        """Return all addresses that were asked for, without those of the pages' own files and what is in them."""
        urls = [event["params"]["request"]["url"] for event in self.events
                if event.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:", "about:"))]

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as a PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a Chromium whose own files are in a folder, and end it."""
    command = [executable() or "", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"]
    there, into = os.pipe()
    out_of, back = os.pipe()
    piped = [sys.executable, "-c", PIPED, str(there), str(back), *command]
    with subprocess.Popen(piped, pass_fds=(there, back), stderr=subprocess.DEVNULL) as process:
        for end in (there, back):
            os.close(end)
        try:
            yield Browser(into, out_of)
        finally:
            process.terminate()
            for end in (into, out_of):
                os.close(end)
