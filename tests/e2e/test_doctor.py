"""`wardent doctor` names what is wrong between the hops, in a real chain with one mistake each."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rig import Nginx, RawUpstream, Wardent
from rig.apps import answer

KEY = "k" * 32
ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
POLICY: dict[str, Any] = {
    "routes": [
        {
            "name": "stripe",
            "match": {"path": "/webhooks/stripe", "methods": ["POST"]},
            "secret": "skip",
            "bots": "skip",
            "signature": {"scheme": "stripe", "secrets": [{"env": "STRIPE"}]},
        }
    ]
}
CLIENT = "proxy_set_header CF-Connecting-IP $wardent_client_ip;"
NO_PAGES = "include wardent/snippets/no-pages.conf;"
PAGES = "proxy_intercept_errors on; error_page 403 /_wardent/403.html;"
PROXY = "snippets/proxy.conf"


@pytest.fixture
def app(rig) -> RawUpstream:
    return rig.raw_upstream(answer(ANSWER))


def chain(rig, app: RawUpstream, secret: bool = True, **options: Any) -> tuple[Wardent, Nginx]:
    """A Wardent before `app`, and an nginx before it."""
    wardent = rig.wardent(app.address, policy=POLICY, start=False, env={"STRIPE": "whsec_x"})
    if secret:
        key = wardent.directory / "key"
        key.write_text(KEY)
        key.chmod(0o600)
        wardent.config["secret"] = {"keys": [{"id": "k", "from": {"file": str(key)}}]}
        wardent.write_config(wardent.config)
    wardent.start()
    # A machine of its own is no CDN: what it says of a client is not passed on.
    options.setdefault("trusted", None)
    return wardent, rig.nginx(wardent.address, **options)


def doctor(wardent: Wardent, nginx: Nginx) -> subprocess.CompletedProcess[str]:
    return wardent.cli("doctor", "--nginx", str(nginx.config), deadline_s=60)


def worded(done: subprocess.CompletedProcess[str], words: str, code: int) -> None:
    assert words in done.stdout, done.stdout + done.stderr
    assert done.returncode == code, done.stdout + done.stderr


def test_a_chain_that_is_right_is_well(rig, app) -> None:
    wardent, nginx = chain(rig, app)
    done = doctor(wardent, nginx)
    for words in (
        "answers / with 404",
        "a visitor's request gets through, and is answered with 404",
        " leads to Wardent",
        "a request without the secret is refused",
        "a refused webhook of `stripe` is answered with 400",
    ):
        worded(done, words, 0)
    assert "wrong  " not in done.stdout, done.stdout
    assert KEY not in done.stdout + done.stderr
    report = wardent.cli("doctor", "--nginx", str(nginx.config), "--output", "json", deadline_s=60)
    told = json.loads(report.stdout)
    assert told["ok"] is True
    assert {one["hop"] for one in told["findings"]} >= {"application", "wardent", "nginx"}
    # Through TLS, as a name.
    url = "https://127.0.0.1:%d" % nginx.tls[1]
    worded(wardent.cli("doctor", "--url", url, deadline_s=60), "leads to Wardent", 0)


TRAPS = {
    "body": (
        {"site.conf": ("client_max_body_size 0;", "client_max_body_size 10m;")},
        "nginx refuses bodies over 10 MiB, before Wardent's own bound of 10 MiB",
        0,
    ),
    "body unsaid": (
        {"site.conf": ("client_max_body_size 0;", "")},
        "a body of 10485760 bytes is refused before Wardent",
        1,
    ),
    "secret": (
        {PROXY: (CLIENT, f"{CLIENT} proxy_set_header X-Wardent-Secret {KEY};")},
        "a request without the secret gets through: nginx adds it",
        1,
    ),
    "identity": (
        {PROXY: (CLIENT, 'proxy_set_header CF-Connecting-IP "";')},
        "nginx takes `cf-connecting-ip` away",
        0,
    ),
    "hop": (
        {PROXY: (CLIENT, "proxy_set_header CF-Connecting-IP $remote_addr;")},
        "is the hop before nginx",
        0,
    ),
    "success": (
        {
            "snippets/pages.conf": (
                "error_page 403 /_wardent/403.html;",
                "error_page 403 =200 /_wardent/403.html;",
            )
        },
        "Wardent's 403 becomes 200: an error looks like a success",
        1,
    ),
    "webhook success": (
        {"site.conf": (NO_PAGES, PAGES.replace("403 /", "403 =200 /"))},
        "a refused webhook of `stripe` is answered with 200: who sent it takes it as delivered",
        1,
    ),
    "webhook page": (
        {"site.conf": (NO_PAGES, PAGES)},
        "nginx replaces the answers to the webhooks of `stripe` by pages",
        0,
    ),
    "realip": (
        {"wardent.conf": ("upstream wardent {", "set_real_ip_from 0.0.0.0/0;\nupstream wardent {")},
        "realip believes everybody",
        0,
    ),
    "patience": (
        {PROXY: ("proxy_read_timeout    90s;", "proxy_read_timeout 60s;")},
        "nginx waits 60 s for an answer, Wardent 60 s",
        0,
    ),
    "host": (
        {PROXY: ("proxy_set_header Host              $host;", "")},
        "no `Host` is set",
        0,
    ),
    "path": (
        {"site.conf": ("proxy_pass http://wardent;", "proxy_pass http://wardent/;")},
        "a path behind `proxy_pass`",
        0,
    ),
    # With a page nginx drops the header; without one it is shown.
    "reason shown": (
        {
            PROXY: ("proxy_hide_header X-Wardent-Reason;", ""),
            "site.conf": ("include wardent/snippets/pages.conf;", ""),
        },
        "clients are shown X-Wardent-Reason",
        0,
    ),
}


@pytest.mark.parametrize("changes,words,code", TRAPS.values(), ids=TRAPS)
def test_each_trap_is_named(rig, app, changes, words: str, code: int) -> None:
    # Webhooks are judged by their signature only where it is known whose they are.
    trusted = "127.0.0.1/32" if "webhook" in words else None
    wardent, nginx = chain(rig, app, changes=changes, trusted=trusted)
    done = doctor(wardent, nginx)
    worded(done, words, code)
    assert "help: " in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_bodies_that_nginx_takes_first_are_bounded_by_wardent(rig, app) -> None:
    changes = {"site-buffered.conf": ("client_max_body_size 11m;", "client_max_body_size 9m;")}
    wardent, nginx = chain(rig, app, site="site-buffered.conf", changes=changes)
    done = doctor(wardent, nginx)
    worded(done, "nginx refuses bodies over 9 MiB", 1)
    worded(done, "is refused before Wardent", 1)


def test_a_stranger_who_is_believed_is_told(rig, app) -> None:
    wardent, nginx = chain(rig, app, secret=False, trusted="127.0.0.1/32")
    done = doctor(wardent, nginx)
    worded(done, "a stranger that calls itself 192.0.2.78 by `cf-connecting-ip` is believed", 1)


def test_what_is_not_there_is_told(rig, app) -> None:
    wardent, nginx = chain(rig, app)
    app.stop()
    worded(doctor(wardent, nginx), "start it, or name where it is in `upstream.servers`", 1)
    nginx.stop()
    worded(doctor(wardent, nginx), "is nginx running, and does it listen there?", 1)
    wardent.stop()
    worded(doctor(wardent, nginx), "start it: systemctl start wardent", 1)


def test_an_nginx_that_leads_elsewhere_is_told(rig, app, tmp_path: Path) -> None:
    wardent = rig.wardent(app.address)
    config = tmp_path / "nginx.conf"
    config.write_text("http { server { location / { proxy_pass http://127.0.0.1:9; } } }")
    for command in ("doctor", "check"):
        done = wardent.cli(command, "--nginx", str(config))
        assert done.returncode == 1
        assert "no location leads to 127.0.0.1:" in done.stderr


def test_check_shows_nginx_as_a_compiler_would(rig, app) -> None:
    wardent, nginx = chain(rig, app, changes=TRAPS["body"][0])
    done = wardent.cli("check", "--nginx", str(nginx.config))
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    place = f"{nginx.directory}/site.conf:"
    first = next(number for number, line in enumerate(lines) if line.startswith(place))
    assert "warning: nginx refuses bodies over 10 MiB" in lines[first]
    assert "client_max_body_size 10m;" in lines[first + 2]
    assert "^^^^" in lines[first + 3]
    assert "= help: client_max_body_size 11m;" in lines[first + 4]
    assert "can be used" in done.stdout
