"""A headless Chromium, spoken to over two pipes: no port, no library, and it ends with the test."""

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--proxy-server=direct://",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but loopback is reached
    "--remote-debugging-pipe",
)
_ANSWER_SECONDS = 15


class Chromium:
    """One browser process.

    It reads commands from its file descriptor 3 and writes answers and events to 4, each a JSON text that a zero byte
    ends (the DevTools protocol).
    """

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # A shell puts the two pipes where the browser looks for them.
        redirected = f'exec "$@" 3<&{commands} 4>&{answers}'
        argv = ["bash", "-c", redirected, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        log = profile.parent / "chromium.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(commands, answers),
                start_new_session=True,
            )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self.events.append(answer)

    def wait_for(self, event: str, session: str) -> None:
        """Waits until an event has come."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not any(e.get("method") == event and e.get("sessionId") == session for e in self.events):
            self.events.append(self._next(deadline))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        text, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(text))

    def close(self) -> None:
        """Ends the browser with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    @contextlib.contextmanager
    def open(self, address: str, width: int, height: int, *, dark: bool = False) -> Iterator["Tab"]:
        """Opens a page in a tab of its own, on a phone (narrower than 600 pixels) or on a desk."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, width, height)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired", session)
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """A page that is open."""

    def __init__(self, browser: Chromium, session: str, width: int, height: int) -> None:
        self._browser = browser
        self._session = session
        self.width = width
        self.height = height

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command to this tab."""
        return self._browser.call(method, self._session, **parameters)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; the page's own policy does not bind the debugger."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Clicks where an element is, as a finger would."""
        box = f"(e => (e.scrollIntoView(), e.getBoundingClientRect().toJSON()))(document.querySelector('{selector}'))"
        where = self.ask(box)
        point = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **point)

    def screenshot(self, file: Path, *, whole: bool = False) -> bytes:
        """Keeps a picture of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        picture = base64.b64decode(data)
        file.write_bytes(picture)
        return picture

    def complaints(self) -> list[str]:
        """What the browser wrote into the console: refused resources, errors, dialogs."""
        self.ask("0")  # what was on its way has come now
        kinds = (
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
        )
        mine = [e for e in self._browser.events if e.get("sessionId") == self._session]
        return [json.dumps(e["params"]) for e in mine if e["method"] in kinds]
