"""Headless Chromium, steered over its pipe of DevTools: no driver, no download."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.serving.process import DEADLINE, until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Browser:
    """One page at a time.

    Args:
        profile: an empty directory.

    Attributes:
        complaints: what the page's console has of errors, those of the security policy too.
    """

    def __init__(self, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        command = [str(CHROMIUM), "--headless", "--remote-debugging-pipe", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # which root cannot have
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._left, self._calls, self._session = b"", 0, ""
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Log.enable")
        self._call("Page.enable")

    def open(self, url: str) -> None:
        """Goes to a page, afresh."""
        self._call("Page.navigate", url="about:blank")
        self.complaints.clear()
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """What an expression is in the page, or what its promise comes to."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """What a person reads in an element; "" where there is none to see."""
        seen = "e => e && e.checkVisibility() ? e.innerText : ''"
        return str(self.run(f"({seen})(document.querySelector({json.dumps(selector)}))"))

    def wait_for(self, selector: str, text: str) -> str:
        """The text of an element, once it has some text in it."""
        found = until(lambda: text in (shown := self.text(selector)) and (shown,))
        return str(found[0])

    def screen(self, width: int, dark: bool = False) -> None:
        """Gives the page a width in CSS pixels, and a reader who likes it light or dark."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        liked = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[liked])

    def connect(self, online: bool) -> None:
        """Gives the page a network, or takes it away."""
        limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._call("Network.enable")
        self._call("Network.emulateNetworkConditions", offline=not online, **limits)

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()
        os.close(self._from)
        os.close(self._to)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        call = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._to, json.dumps(call).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["level"] == "error":
                    self.complaints.append(entry["text"])
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return message["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._from], [], [], DEADLINE)
            part = os.read(self._from, 2**16) if ready else b""
            assert part, "the browser has ended, or hangs"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return dict(json.loads(message))
