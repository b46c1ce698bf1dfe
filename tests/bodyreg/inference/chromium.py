"""A headless Chromium for tests, driven over its own pipe: no driver, no further package.

Chromium speaks its DevTools protocol on file descriptors 3 and 4 when started with `--remote-debugging-pipe`: JSON
messages, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # there is no network
)  # fmt: skip


def find_chromium() -> str | None:
    """Path of a Chromium: what BODYREG_CHROMIUM says, else the first on the search path; its pipe needs POSIX."""
    if os.name != "posix":
        return None
    named = os.environ.get("BODYREG_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page of a headless browser. Use as a context manager.

    Attributes:
        complaints: errors and warnings of the console, exceptions, files that could not be loaded.
        requests: addresses that the page asked for.
    """

    def __init__(self, executable: str, profile: Path, size_wh: tuple[int, int] = (1280, 800)) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._rest = b""
        self._fired: list[str] = []
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        import fcntl  # of POSIX alone

        # Moved up first: one of them may be 3 or 4 already.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser, from_browser)]
        command = [executable, *_OPTIONS, f"--window-size={size_wh[0]},{size_wh[1]}", f"--user-data-dir={profile}"]

        def hand_over() -> None:
            for number, end in zip((3, 4), theirs, strict=True):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=(3, 4), preexec_fn=hand_over, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (to_browser, from_browser, *theirs):
            os.close(end)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(item["targetId"] for item in targets if item["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size_wh[0], height=size_wh[1], deviceScaleFactor=1, mobile=False
        )

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    # ---- what tests do ----------------------------------------------------------------------------------------------

    def open(self, page: Path | str) -> float:
        """Load a file or an address and wait until it has loaded; gives the seconds."""
        start = time.monotonic()
        self._fired.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._until(lambda: "Page.loadEventFired" in self._fired)
        return time.monotonic() - start

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression} raised {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30.0) -> None:
        """Wait until an expression is true; AssertionError when it never is."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression} did not come true; the console said {self.complaints}"
            time.sleep(0.05)

    def settle(self) -> None:
        """Wait for two frames to be drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def picture(self, selector: str | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the window, or of what an element covers."""
        options: dict[str, Any] = {"format": "png"}
        if selector is not None:
            x, y, w, h = self.box(selector)
            options["clip"] = {"x": x, "y": y, "width": w, "height": h, "scale": 1}
        self.settle()
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def box(self, selector: str) -> list[float]:
        """x, y, width, height of an element in the window."""
        return self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
            "return [b.x, b.y, b.width, b.height]; })()"
        )

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first point, move over the others, let go at the last."""
        moves = [("mousePressed", points[0]), *(("mouseMoved", point) for point in points[1:])]
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=points[0][0], y=points[0][1])
        for kind, (x, y) in [*moves, ("mouseReleased", points[-1])]:
            held = int(kind != "mouseReleased")
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)
        self.settle()

    def key(self, name: str, code: int) -> None:
        """Press and let go a key, by its name and number."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)
        self.settle()

    # ---- the protocol -----------------------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and give its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}
        self._until(lambda: answer, answer, self._number)
        if "error" in answer:
            raise AssertionError(f"{method} failed: {answer['error']}")
        return answer["result"]

    def _until(self, done: Any, answer: dict[str, Any] | None = None, number: int | None = None) -> None:
        end = time.monotonic() + 60
        while not done():
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "Chromium does not answer"
            *messages, self._rest = (self._rest + data).split(b"\0")
            for message in map(json.loads, messages):
                if answer is not None and message.get("id") == number:
                    answer.update(message)
                else:
                    self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self._fired.append(method)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Network.loadingFailed":
            self.complaints.append(f"{params['type']}: {params['errorText']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
