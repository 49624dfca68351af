#!/usr/bin/env python3
"""Opens every page of a folder in headless Chromium and looks for what a report must not do.

    check_report.py CHROMIUM DIR

Each *.html in DIR is opened at two widths, light and dark. It fails if anything comes up in the
console, if anything but the page itself is asked for, if anything is wider than the window, or if a
text has too little contrast. A screenshot of each and a print as PDF are left beside it. Before that, pages that do each
of these things must be found out.

Speaks the DevTools protocol over a pipe, so that nothing but Python and the browser is needed.
"""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTHS = {"phone": 390, "desktop": 1280}
SCHEMES = ["light", "dark"]
TIMEOUT_SECONDS = 30
# How long after loading something may still come: a request or an error of a script.
SETTLE_SECONDS = 0.15
# Chromium takes no picture that is higher.
MAX_HEIGHT = 16000
# WCAG 2.2, 1.4.3, for text of any size.
MIN_CONTRAST = 4.5

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]

# What is wrong with each, and a page that does it.
BAD = {
    "console": "<p>a</p><script>console.error('bad')</script>",
    "thrown": "<p>a</p><script>throw new Error('bad')</script>",
    "policy": "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><img src='data:,'>",
    "request": "<img src='http://127.0.0.1:9/a.png'>",
    "import": "<style>@import 'http://127.0.0.1:9/a.css';</style><p>a</p>",
    "wide": "<p style='width:2000px'>a</p>",
    "beyond the column": "<main style='width:100px'><p style='width:200px'>a</p></main>",
    "faint": "<p style='color:#999;background:#fff'>a</p>",
    "cut off": "<div style='width:40px;overflow:hidden;white-space:nowrap'>a long text</div>",
}

LAYOUT = """(() => {
  const edge = Math.min(innerWidth, document.querySelector('main')?.getBoundingClientRect().right ?? innerWidth);
  const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg'))
    .filter(e => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.right > edge + 0.5 || r.left < -0.5); })
    .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40));
  const cut = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && getComputedStyle(e).overflowX !== 'visible')
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.tagName + '.' + e.className);
  const numbers = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n.slice(0, 3), 1]; };
  const luminance = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const backOf = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
    return [255, 255, 255, 1]; };
  const faint = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg')) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(backOf(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < MIN_CONTRAST) faint.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
  }
  return { wide: wide.slice(0, 5), cut, faint: [...faint], scroll: document.documentElement.scrollWidth,
    height: Math.ceil(document.documentElement.getBoundingClientRect().height) };
})()""".replace("MIN_CONTRAST", str(MIN_CONTRAST))


class Browser:
    """A browser with one connection: messages of JSON, each ended by a zero byte."""

    def __init__(self, program, folder):
        to_browser, self.out = os.pipe()
        self.inp, from_browser = os.pipe()

        def at_3_and_4():
            # Neither may be overwritten before it has been copied.
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            command, close_fds=False, preexec_fn=at_3_and_4, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.rest = b""
        self.count = 0
        self.events = []

    def close(self):
        os.close(self.out)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.inp)

    def receive(self, seconds):
        """The next message; None if there is none in that time."""
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.inp], [], [], left)[0]:
                return None
            piece = os.read(self.inp, 1 << 20)
            if not piece:
                sys.exit("the browser has gone away")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive(TIMEOUT_SECONDS)
            if answer is None:
                sys.exit(f"the browser does not answer {method}")
            if answer.get("id") == self.count:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        end = time.monotonic() + TIMEOUT_SECONDS
        while not any(e.get("method") == method for e in self.events):
            event = self.receive(end - time.monotonic())
            if event is None:
                sys.exit(f"the browser does not tell {method}")
            self.events.append(event)

    def settle(self):
        end = time.monotonic() + SETTLE_SECONDS
        while (left := end - time.monotonic()) > 0:
            if (event := self.receive(left)) is not None:
                self.events.append(event)


def open_page(browser, path, width, scheme):
    """The session of a page that has loaded, and what it did until then."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(method, **params):
        return browser.call(method, session, **params)

    for domain in ["Page", "Runtime", "Log", "Network"]:
        call(f"{domain}.enable")
    call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
    call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    url = path.resolve().as_uri()
    call("Page.navigate", url=url)
    browser.wait_for("Page.loadEventFired")
    browser.settle()
    return target, call, url


def told(event):
    """What an event says is wrong with a page, if anything."""
    params = event.get("params", {})
    match event.get("method"):
        case "Runtime.consoleAPICalled":
            return "console: " + " ".join(str(a.get("value")) for a in params["args"])
        case "Runtime.exceptionThrown":
            return "console: " + params["exceptionDetails"]["text"]
        case "Log.entryAdded":
            return "console: " + params["entry"]["text"]
        case "Network.requestWillBeSent":
            return "request: " + params["request"]["url"]
    return None


def faults(browser, path, width, scheme, picture=None, pdf=None):
    target, call, url = open_page(browser, path, width, scheme)
    layout = call("Runtime.evaluate", expression=LAYOUT, returnByValue=True)["result"]["value"]
    found = [t for e in browser.events if (t := told(e)) and t != f"request: {url}"]
    if layout["scroll"] > width:
        found.append(f"{layout['scroll']} pixels wide")
    found += [f"wider than the page: {e}" for e in layout["wide"]]
    found += [f"cut off: {e}" for e in layout["cut"]]
    found += [f"too little contrast: {e}" for e in layout["faint"]]
    if picture:
        clip = {"x": 0, "y": 0, "width": width, "height": min(layout["height"], MAX_HEIGHT), "scale": 1}
        shot = call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        picture.write_bytes(base64.b64decode(shot["data"]))
    if pdf:
        printed = call("Page.printToPDF", preferCSSPageSize=True, printBackground=False, paperWidth=8.27, paperHeight=11.69)
        pdf.write_bytes(base64.b64decode(printed["data"]))
    browser.call("Target.closeTarget", targetId=target)
    return found


def find_out_bad_pages(browser):
    with tempfile.TemporaryDirectory() as folder:
        for name, body in BAD.items():
            path = Path(folder) / "bad.html"
            path.write_text(f"<!doctype html><meta charset=utf-8>{body}")
            if not faults(browser, path, WIDTHS["phone"], "light"):
                sys.exit(f"a page that is bad ({name}) was not found out")
        path.write_text("<!doctype html><meta charset=utf-8><p>good</p>")
        if found := faults(browser, path, WIDTHS["phone"], "light"):
            sys.exit(f"a good page was found to be bad: {found}")


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    pages = sorted(folder.glob("*.html"))
    if not pages:
        sys.exit(f"no pages in {folder}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        find_out_bad_pages(browser)
        failed = False
        for page in pages:
            for kind, width in WIDTHS.items():
                for scheme in SCHEMES:
                    picture = page.with_name(f"{page.stem}-{kind}-{scheme}.png")
                    pdf = page.with_suffix(".pdf") if (kind, scheme) == ("desktop", "dark") else None
                    found = faults(browser, page, width, scheme, picture, pdf)
                    failed |= bool(found)
                    for fault in found:
                        print(f"{page.name}, {kind}, {scheme}: {fault}")
        browser.close()
    if failed:
        sys.exit(1)
    print(f"{len(pages)} pages: no errors, no requests, nothing too wide, cut off or too faint")


main()
