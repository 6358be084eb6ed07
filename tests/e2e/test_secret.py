"""Only requests with the right secret pass, and what passes proves itself to Django."""

import hashlib
import hmac
import json
import os
import time
from pathlib import Path

import pytest
from rig import Gunicorn, Nginx, Wardent, request, send_raw, wait_until

CLIENT = "198.51.100.7"
KEY, NEW_KEY = "k" * 40, "n" * 40
UPSTREAM_KEY = "u" * 40


def headers(secret: str | None, **more: str) -> dict[str, str]:
    """What Cloudflare sends: the client's address and the secret."""
    found = {"CF-Connecting-IP": CLIENT, **more}
    return found if secret is None else {**found, "X-Wardent-Secret": secret}


def signed(
    key: str = KEY,
    key_id: str = "first",
    age_s: int = 0,
    method: str = "GET",
    host: str = "shop.test",
    target: str = "/echo?q=%C3%BC",
    client: str = CLIENT,
) -> str:
    """The v1 form, written from the contract."""
    seconds = int(time.time()) - age_s
    text = f"v1\n{seconds}\n{method}\n{host}\n{target}\n{client}"
    mac = hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"v1={key_id}.{seconds}.{mac}"


def with_keys(directory: Path, **files: str) -> dict:
    """Settings for keys in files, which are written."""
    keys = []
    for key_id, key in files.items():
        (directory / key_id).write_text(key + "\n")
        keys.append({"id": key_id, "from": {"file": str(directory / key_id)}})
    return {"secret": {"keys": keys}}


@pytest.fixture(scope="module")
def guarded(module_rig, django_app: Gunicorn) -> Wardent:
    config = with_keys(module_rig.directory(), first=KEY)
    return module_rig.wardent(django_app.address, config=config)


@pytest.fixture(scope="module")
def nginx(module_rig, guarded: Wardent) -> Nginx:
    return module_rig.nginx(guarded.address)


def status(address, secret: str | None, target: str = "/", **options) -> int:
    return request(address, target, headers=headers(secret), **options).status


def test_the_secret_opens_the_whole_chain(nginx: Nginx) -> None:
    assert status(nginx.address, KEY) == 200


@pytest.mark.parametrize("wrong", [None, "", "wrong", KEY[:-1], KEY + "x", KEY.upper()])
def test_anything_else_is_refused_alike(guarded: Wardent, nginx, wrong) -> None:
    assert status(nginx.address, wrong) == 403
    got = request(guarded.address, headers=headers(wrong))
    assert (got.status, got.body) == (403, b"")
    assert got.headers["X-Wardent-Reason"] == "bad_secret"


def test_a_refused_one_never_reaches_django(nginx: Nginx, django_app) -> None:
    status(nginx.address, "wrong", "/echo?without-secret")
    status(nginx.address, KEY, "/echo?with-secret")
    # Its log is written after the answer.
    wait_until("Django has logged it", lambda: "/echo?with-secret" in django_app.log())
    assert "/echo?without-secret" not in django_app.log()


def test_the_secret_stays_outside(nginx: Nginx) -> None:
    got = request(nginx.address, "/echo", headers=headers(KEY))
    assert KEY not in got.text
    assert "X-Wardent-Secret" not in json.loads(got.body)["headers"]


def test_two_secrets_are_refused(guarded: Wardent) -> None:
    pairs = [*headers(KEY).items(), ("X-Wardent-Secret", KEY)]
    assert request(guarded.address, headers=pairs).status in (400, 403)


def test_connection_cannot_strip_the_secret(guarded: Wardent) -> None:
    more = {"Connection": "close, X-Wardent-Secret"}
    assert request(guarded.address, headers=headers(KEY, **more)).status == 200


class TestSigned:
    TARGET = "/echo?q=%C3%BC"

    def test_a_fresh_signature_passes(self, guarded: Wardent, nginx: Nginx) -> None:
        assert status(guarded.address, signed(), self.TARGET) == 200
        assert status(nginx.address, signed(), self.TARGET) == 200

    @pytest.mark.parametrize(
        "age_s,code", [(57, 200), (-57, 200), (64, 403), (-64, 403)]
    )
    def test_for_a_minute_either_way(self, guarded, age_s: int, code: int) -> None:
        assert status(guarded.address, signed(age_s=age_s), self.TARGET) == code

    @pytest.mark.parametrize(
        "other",
        [
            {"method": "POST"},
            {"host": "other.test"},
            {"target": "/echo?q=ü"},
            {"client": "198.51.100.8"},
            {"key": NEW_KEY},
            {"key_id": "unknown"},
        ],
    )
    def test_for_nothing_else(self, guarded: Wardent, other: dict) -> None:
        assert status(guarded.address, signed(**other), self.TARGET) == 403


def test_the_secret_is_in_no_log(guarded: Wardent, nginx: Nginx) -> None:
    status(nginx.address, KEY, "/echo?not-in-a-log")
    wait_until("nginx has logged it", lambda: "not-in-a-log" in nginx.log())
    for text in (guarded.output(), nginx.log(), nginx.errors(), guarded.metrics()):
        assert KEY not in text
    for file in guarded.directory.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


def test_rotation_without_a_restart(rig, django_app: Gunicorn) -> None:
    """Two slots in the configuration; which key is in which changes by writing a file."""
    directory = rig.directory()
    config = with_keys(directory, first=KEY, second=KEY)
    wardent = rig.wardent(django_app.address, config=config)
    pid = wardent.running.pid

    def opened_by() -> list[int]:
        return [status(wardent.address, key) for key in (KEY, NEW_KEY)]

    assert opened_by() == [200, 403]
    (directory / "second").write_text(NEW_KEY + "\n")
    assert wardent.cli("reload").returncode == 0
    wait_until("both keys open", lambda: opened_by() == [200, 200], 5)
    (directory / "first").write_text(NEW_KEY + "\n")
    assert wardent.cli("reload").returncode == 0
    wait_until("only the new one opens", lambda: opened_by() == [403, 200], 5)
    assert wardent.running.pid == pid
    assert wardent.running.child.poll() is None


@pytest.mark.parametrize(
    "content", ["", "short\n", None], ids=["empty", "short", "gone"]
)
def test_a_useless_file_keeps_the_old_key_and_says_so(
    rig, django_app: Gunicorn, content: str | None
) -> None:
    directory = rig.directory()
    wardent = rig.wardent(django_app.address, config=with_keys(directory, first=KEY))
    if content is None:
        (directory / "first").unlink()
    else:
        (directory / "first").write_text(content)
    reloaded = wardent.cli("reload")
    assert status(wardent.address, KEY) == 200
    assert status(wardent.address, "") == 403
    said = reloaded.stdout + reloaded.stderr + wardent.output()
    assert str(directory / "first") in said or "first" in reloaded.stderr


class TestTowardsDjango:
    """`secret.upstream`: Django can refuse what did not come through Wardent."""

    @pytest.fixture(scope="class")
    @classmethod
    def keys(cls, module_rig) -> Path:
        directory = module_rig.directory()
        (directory / "app").write_text(UPSTREAM_KEY + "\n")
        return directory

    @pytest.fixture(scope="class")
    @classmethod
    def app(cls, module_rig, keys: Path) -> Gunicorn:
        return module_rig.gunicorn(env={"WARDENT_KEYS": f"app={keys / 'app'}"})

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, keys: Path) -> dict:
        upstream = {"id": "app", "from": {"file": str(keys / "app")}}
        return {"secret": {"upstream": {"header": "x-wardent-secret", **upstream}}}

    @pytest.fixture(scope="class")
    @classmethod
    def wardent(cls, module_rig, app: Gunicorn, config: dict) -> Wardent:
        return module_rig.wardent(app.address, config=config)

    @pytest.fixture(scope="class")
    @classmethod
    def chain(cls, module_rig, wardent: Wardent) -> Nginx:
        return module_rig.nginx(wardent.address)

    @pytest.mark.parametrize("client", [CLIENT, "2001:db8::7"])
    @pytest.mark.parametrize(
        "target", ["/", "/echo", "/echo?", "/echo?q=%C3%BC&r=a+b", "/echo//a/./b;c?d?e"]
    )
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_what_comes_through_is_taken(
        self, chain: Nginx, client: str, target: str, method: str
    ) -> None:
        body = b"a=1" if method == "POST" else None
        sent = {"CF-Connecting-IP": client}
        assert request(chain.address, target, method, sent, body).status == 200

    def test_what_goes_around_is_refused(self, app: Gunicorn) -> None:
        for address in (app.address, app.unix):
            got = request(address, "/echo", headers=headers(UPSTREAM_KEY))
            assert (got.status, got.text) == (403, "403: not through Wardent")
        # The one path that answers without.
        assert request(app.address, "/healthz").status == 200

    def test_a_header_seen_once_works_for_nothing_else(
        self, chain: Nginx, app: Gunicorn
    ) -> None:
        sent = {"CF-Connecting-IP": CLIENT}
        got = json.loads(request(chain.address, "/echo?mine", headers=sent).body)
        names = ("X-Wardent-Secret", "X-Real-Ip", "Host")
        stolen = {name: got["headers"][name] for name in names}
        assert request(app.address, "/echo?mine", headers=stolen).status == 200
        for target, changed in [
            ("/echo?other", {}),
            ("/echo?mine", {"X-Real-Ip": "198.51.100.8"}),
            ("/echo?mine", {"Host": "other.test"}),
        ]:
            got = request(app.address, target, headers={**stolen, **changed})
            assert got.status == 403

    def test_what_the_client_says_there_is_replaced(self, wardent: Wardent) -> None:
        sent = headers("v1=app.1.forged", Connection="close, X-Wardent-Secret")
        got = request(wardent.address, "/echo", headers=sent)
        assert got.status == 200
        assert "forged" not in got.text

    @pytest.mark.parametrize("host", ["Shop.Test", "shop.test:8443"])
    def test_any_spelling_of_the_host_verifies(
        self, wardent: Wardent, host: str
    ) -> None:
        sent = {"CF-Connecting-IP": CLIENT, "Host": host}
        assert request(wardent.address, "/echo", headers=sent).status == 200

    def test_absolute_targets_verify(self, wardent: Wardent) -> None:
        got = send_raw(
            wardent.address,
            b"GET http://shop.test/echo?q HTTP/1.1\r\nHost: shop.test\r\n"
            b"CF-Connecting-IP: 198.51.100.7\r\nUser-Agent: Mozilla/5.0\r\n"
            b"Connection: close\r\n\r\n",
        )
        assert got.startswith(b"HTTP/1.1 200 "), got

    def test_a_client_without_an_address_verifies(
        self, rig, app: Gunicorn, config: dict
    ) -> None:
        config = {**config, "client_ip": {"missing": "peer"}}
        wardent = rig.wardent(app.address, config=config)
        assert request(wardent.address, "/echo").status == 200

    def test_both_secrets_at_once(self, rig, app: Gunicorn, config: dict) -> None:
        both = with_keys(rig.directory(), first=KEY)
        both["secret"].update(config["secret"])
        wardent = rig.wardent(app.address, config=both)
        assert status(wardent.address, KEY, "/echo") == 200
        assert status(wardent.address, None, "/echo") == 403
        assert KEY not in request(wardent.address, "/echo", headers=headers(KEY)).text

    def test_a_new_key_in_both_files(self, rig) -> None:
        directory = rig.directory()
        file = directory / "app"
        file.write_text(UPSTREAM_KEY + "\n")
        app = rig.gunicorn(env={"WARDENT_KEYS": f"app={file}"})
        upstream = {"id": "app", "from": {"file": str(file)}}
        wardent = rig.wardent(app.address, config={"secret": {"upstream": upstream}})
        assert status(wardent.address, None, "/echo") == 200
        new = directory / "new"
        new.write_text(NEW_KEY + "\n")
        os.replace(new, file)
        assert wardent.cli("reload").returncode == 0
        wait_until(
            "Django takes the new key",
            lambda: status(wardent.address, None, "/echo") == 200,
            5,
        )


class TestCommands:
    def test_new_makes_a_key_that_works(self, rig, django_app: Gunicorn) -> None:
        directory = rig.directory()
        wardent = rig.wardent(
            django_app.address, config=with_keys(directory, first=KEY)
        )
        made = [wardent.cli("secret", "new").stdout.strip() for _ in range(2)]
        assert made[0] != made[1]
        assert all(len(key) >= 32 and key.isascii() for key in made)
        assert not any(character.isspace() for character in made[0])
        (directory / "first").write_text(made[0] + "\n")
        assert wardent.cli("reload").returncode == 0
        wait_until(
            "the new key opens", lambda: status(wardent.address, made[0]) == 200, 5
        )

    def test_sign_makes_a_header_that_works(self, guarded: Wardent) -> None:
        target = "/echo?q=%C3%BC"
        done = guarded.cli(
            *("secret", "sign", "--method", "GET", "--host", "shop.test"),
            *("--target", target, "--ip", CLIENT),
        )
        assert done.returncode == 0, done.stderr
        header = done.stdout.strip().rpartition(" ")[2]
        assert header.startswith("v1=first.")
        assert status(guarded.address, header, target) == 200
        assert status(guarded.address, header, "/echo?other") == 403
