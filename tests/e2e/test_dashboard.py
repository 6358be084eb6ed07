"""The dashboard in a real browser, under live traffic: read, acted upon, and safe from what clients write.

`WARDENT_SCREENSHOTS=docs/screenshots` keeps pictures of the pages there.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from rig import Wardent, request, wait_until

PAGES = {
    "now": "/",
    "clients": "/clients",
    "client": "/client/198.51.100.66",
    "bans": "/bans",
    "policy": "/policy",
    "bots": "/bots",
    "log": "/log",
    "health": "/health",
}
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PEOPLE = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
POLICY = """\
# What the shop asks for.
mode: enforce
defaults:
  limit: {rate: 40/s, burst: 60}
routes:
  - name: login
    match: {path: /accounts/login/, methods: [POST]}
    limit: {rate: 5/m, burst: 5}
  - name: search     # watched for a week
    match: {path: /search/}
    mode: observe
    limit: {rate: 2/s, burst: 4}
  - name: trap
    match: {path: ["/.env", "/wp-login.php"]}
    trap: true
bans: {threshold: 10, window: 60s, duration: 10m}
"""


class Traffic:
    """Asks like a few visitors, some of whom are none, until it is stopped."""

    def __init__(self, wardent: Wardent) -> None:
        self.wardent = wardent
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def ask(self, client: str, path: str, agent: str = PEOPLE, method: str = "GET") -> None:
        headers = {"CF-Connecting-IP": client, "User-Agent": agent}
        request(self.wardent.address, path, method=method, headers=headers, timeout_s=10)

    def run(self) -> None:
        turn = 0
        while not self.stopped.wait(0.02):
            turn += 1
            self.ask(f"203.0.113.{turn % 23 + 1}", ["/", "/shop/", "/shop/tea", "/about"][turn % 4])
            if turn % 3 == 0:
                self.ask("198.51.100.20", "/search/?q=tea")
            if turn % 7 == 0:
                self.ask("198.51.100.31", "/", "GPTBot/1.2 (+https://openai.com/gptbot)")
            if turn % 11 == 0:
                self.ask("198.51.100.44", "/accounts/login/", method="POST")
            if turn % 13 == 0:
                self.ask("198.51.100.66", "/wp-login.php", HOSTILE)
            if turn % 17 == 0:
                self.ask("2001:db8:7::9", "/shop/coffee", "curl/8.5.0")

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join(20)


@pytest.fixture(scope="module")
def wardent(module_rig) -> Iterator[Wardent]:
    def answer(connection, _head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n")

    shop = module_rig.raw_upstream(answer).address
    wardent = module_rig.wardent(shop, policy=POLICY, config={"log": {"listen": None}})
    traffic = Traffic(wardent)
    wait_until("the trap has banned somebody", lambda: "198.51.100.66" in bans(wardent))
    yield wardent
    traffic.stop()


def bans(wardent: Wardent) -> str:
    return wardent.ask_admin("/api/v1/bans").text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "no chromium: tests/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and what went wrong in it: errors, and what the content security policy had to stop."""

    def __init__(self, context: BrowserContext, wardent: Wardent) -> None:
        self.faults: list[str] = []
        self.base = "http://%s:%d" % wardent.admin
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self.heard)
        self.page.on("request", self.asked)
        self.page.set_default_timeout(20_000)

    def heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def asked(self, asked) -> None:
        if not asked.url.startswith(self.base):
            self.faults.append(f"asks {asked.url}")

    def goto(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def log_in(self, wardent: Wardent) -> None:
        token = (wardent.directory / "admin.token").read_text().strip()
        self.goto("/login?back=/bans")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("button", name="Log out").wait_for()


@pytest.fixture
def watched(browser: Browser, wardent: Wardent) -> Iterator[Watched]:
    context = browser.new_context(viewport=DESKTOP)
    watched = Watched(context, wardent)
    yield watched
    context.close()
    assert watched.faults == []


@pytest.mark.parametrize("path", PAGES.values())
def test_every_page_is_read_and_lives(watched: Watched, path: str) -> None:
    page = watched.goto(path)
    assert page.get_by_role("heading", level=1).count() == 1
    page.locator("body[data-state=live]").wait_for()
    assert page.title().endswith("· Wardent")
    assert page.locator("img").count() == 0


def test_without_scripts_every_page_says_the_same(browser: Browser, wardent: Wardent) -> None:
    context = browser.new_context(java_script_enabled=False)
    watched = Watched(context, wardent)
    for path in PAGES.values():
        page = watched.goto(path)
        assert page.locator("section").count() >= 2, path
    watched.goto("/")
    assert page.locator("figure svg").count() == 2
    watched.log_in(wardent)
    page.get_by_label("Client or network").fill("192.0.2.200")
    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_text("192.0.2.200 is banned until").wait_for()
    page.get_by_role("button", name="Unban 192.0.2.200").click()
    page.get_by_text("192.0.2.200 is not banned any more").wait_for()
    context.close()
    assert watched.faults == []


def test_numbers_move_without_a_reload(watched: Watched) -> None:
    page = watched.goto("/")
    tiles = page.locator("#tiles")
    first = tiles.inner_text()
    page.wait_for_function("before => document.getElementById('tiles').innerText !== before", arg=first)
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused").wait_for()
    page.get_by_role("button", name="Go on").click()
    page.locator("body[data-state=live]").wait_for()


def test_somebody_is_banned_and_unbanned_with_grace(watched: Watched, wardent: Wardent) -> None:
    watched.log_in(wardent)
    page = watched.page
    page.get_by_label("Client or network").fill("192.0.2.77")
    page.get_by_label("Why").fill("<b>tries</b> passwords")
    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_text("192.0.2.77 is banned until").wait_for()
    headers = {"CF-Connecting-IP": "192.0.2.77"}
    assert request(wardent.address, "/", headers=headers).status == 403
    page.get_by_role("link", name="192.0.2.77").first.click()
    page.get_by_role("heading", name="Client 192.0.2.77").wait_for()
    assert page.get_by_text("<b>tries</b> passwords").count() >= 1
    page.get_by_label("Grace for").select_option("1h")
    page.get_by_role("button", name="Unban").click()
    page.get_by_text("nothing counts for 1").wait_for()
    assert request(wardent.address, "/", headers=headers).status == 200
    assert "192.0.2.77" not in bans(wardent)


def test_a_route_is_switched_where_one_sees_the_need(watched: Watched, wardent: Wardent) -> None:
    watched.log_in(wardent)
    page = watched.goto("/policy")
    page.get_by_role("button", name="Switch search to enforce").click()
    page.get_by_text("search: enforce").wait_for()
    assert "    mode: enforce\n    limit: {rate: 2/s" in wardent.policy_file.read_text()
    page.get_by_role("button", name="Switch search to observe").click()
    page.get_by_text("search: observe").wait_for()
    assert wardent.policy_file.read_text() == POLICY


def test_what_a_hostile_client_writes_stays_text(watched: Watched) -> None:
    for path in ("/client/198.51.100.66", "/clients?by=user_agent"):
        page = watched.goto(path)
        page.get_by_text(HOSTILE).first.wait_for()
        assert page.locator("img, main script").count() == 0
        assert "owned" not in page.title()
    page.goto(watched.base + "/client/198.51.100.66")
    page.locator("a[href^='/request/']").last.click()
    page.get_by_role("heading", name="Request").wait_for()
    assert page.locator("img").count() == 0


def test_the_policy_of_the_pages_stops_what_would_run(browser: Browser, wardent: Wardent) -> None:
    context = browser.new_context()
    watched = Watched(context, wardent)
    page = watched.goto("/")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:1/x";
        document.body.append(image);
    }""")
    wait_until("both are stopped", lambda: len(watched.faults) >= 2 or bool(page.wait_for_timeout(50)))
    assert "owned" not in page.title()
    assert all("Content Security Policy" in fault or "asks" in fault for fault in watched.faults), watched.faults
    context.close()


def test_a_page_can_be_walked_by_keys_alone(watched: Watched) -> None:
    page = watched.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = []
    watched.goto("/bans")
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.innerText || document.activeElement.name"))
    assert [word for word in seen if word in ("Now", "Bans", "Health", "Log in")] == ["Now", "Bans", "Health", "Log in"]


NAMELESS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, meter, [role=img], [role=region]")]
    .filter(each => !each.closest("[aria-hidden=true]") && each.getAttribute("aria-hidden") !== "true")
    .filter(each => !(each.innerText || "").trim() && !each.getAttribute("aria-label")
        && !(each.labels && each.labels.length) && !each.title)
    .map(each => each.outerHTML)"""
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everything_has_a_name_and_nothing_is_wider_than_the_screen(
    browser: Browser, wardent: Wardent, size: dict[str, int]
) -> None:
    context = browser.new_context(viewport=size)
    watched = Watched(context, wardent)
    watched.log_in(wardent)
    for path in PAGES.values():
        page = watched.goto(path)
        assert page.evaluate(NAMELESS) == [], path
        assert page.evaluate(TOO_WIDE) <= 0, path
    context.close()


def test_a_page_is_small_and_there_at_once(watched: Watched) -> None:
    for path in PAGES.values():
        page = watched.goto(path)
        taken = page.evaluate("""() => {
            const [page] = performance.getEntriesByType("navigation");
            const all = performance.getEntriesByType("resource").filter(each => each.initiatorType !== "other");
            const bytes = all.reduce((sum, each) => sum + each.decodedBodySize, page.decodedBodySize);
            return {bytes, shown_ms: page.domContentLoadedEventEnd};
        }""")
        print(path, taken)
        assert taken["bytes"] < 100 * 1024, (path, taken)


def test_screenshots(browser: Browser, wardent: Wardent) -> None:
    place = os.environ.get("WARDENT_SCREENSHOTS")
    if not place:
        pytest.skip("WARDENT_SCREENSHOTS says where to")
    # A chart of nothing shows nothing: two minutes of traffic.
    time.sleep(float(os.environ.get("WARDENT_SCREENSHOTS_AFTER", "120")))
    for size_name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=size, color_scheme=scheme)
            watched = Watched(context, wardent)
            watched.log_in(wardent)
            for name, path in PAGES.items():
                if scheme == "dark" and name not in ("now", "clients", "client"):
                    continue
                page = watched.goto(path)
                page.locator("body[data-state=live]").wait_for()
                page.wait_for_timeout(1_500)
                page.screenshot(path=Path(place) / f"{name}-{size_name}-{scheme}.png", full_page=True)
            context.close()
