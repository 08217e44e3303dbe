"""Behind a proxy: whose word counts, and the configurations of the documentation with a real nginx and a real Caddy."""

import ipaddress
import json
import re
import shutil
import socket
import subprocess
import time

import httpx
import pytest
from paths import ROOT

from visavis.deploy.server.proxies import address_block, client_address, public_origin, root_path, trusted_network
from visavis.errors import DataError

TOKENS = {"w" * 24: "write"}


HEADERS = {"Authorization": "Bearer " + "w" * 24}


DOCS = (ROOT / "docs" / "service.md").read_text()


NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


CADDY = shutil.which("caddy")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "client"),
    [
        ("127.0.0.1", ["9.9.9.9"], [], "127.0.0.1"),
        ("127.0.0.1", ["9.9.9.9"], ["127.0.0.2"], "127.0.0.1"),
        ("127.0.0.1", ["9.9.9.9"], ["127.0.0.1"], "9.9.9.9"),
        ("127.0.0.1", ["6.6.6.6, 9.9.9.9"], ["127.0.0.1"], "9.9.9.9"),
        ("127.0.0.1", ["6.6.6.6", "9.9.9.9, 10.1.2.3"], ["127.0.0.1", "10.0.0.0/8"], "9.9.9.9"),
        ("127.0.0.1", ["10.1.1.1"], ["127.0.0.1", "10.0.0.0/8"], "10.1.1.1"),
        ("127.0.0.1", ["9.9.9.9:4711"], ["127.0.0.1"], "9.9.9.9"),
        ("::1", ['"[2001:db8::7]:4711"'], ["::1"], "2001:db8::7"),
        ("::ffff:127.0.0.1", ["9.9.9.9"], ["127.0.0.1"], "9.9.9.9"),
        ("127.0.0.1", ["9.9.9.9, unknown"], ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ['evil", "action": "x'], ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [""], ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [], ["127.0.0.1"], "127.0.0.1"),
        ("testclient", ["9.9.9.9"], ["127.0.0.1"], "testclient"),
    ],
)
def test_the_client_is_the_nearest_address_nobody_trusts(peer, forwarded, trusted, client):
    assert client_address(peer, forwarded, [ipaddress.ip_network(t) for t in trusted]) == client


def test_ipv6_counts_by_the_block_of_a_customer():
    assert address_block("2001:db8::1") == address_block("2001:db8::ffff:1") == "2001:db8::/64"
    assert address_block("2001:db8:0:1::1") != address_block("2001:db8::1")
    assert (address_block("::1"), address_block("9.9.9.9"), address_block("x")) == ("::1", "9.9.9.9", "x")


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (trusted_network, "proxy.example", "address or a network"),
        (trusted_network, "10.0.0.1/8", "host bits"),
        (trusted_network, "0.0.0.0/0", "anybody"),
        (trusted_network, "::/0", "anybody"),
        (public_origin, "faces.example.org", "https://faces.example.org"),
        (public_origin, "https://faces.example.org/faces", "--root-path"),
        (public_origin, "https://a@faces.example.org", "--origin wants"),
        (public_origin, "https://[", "--origin wants"),
        (public_origin, "https://faces.example.org:99999", "--origin wants"),
        (root_path, "faces", "/faces"),
        (root_path, "/fa ces", "/faces"),
        (root_path, "/a//b", "/faces"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(read, text, said):
    with pytest.raises(DataError, match=re.escape(said)):
        read(text)


def test_options_are_read():
    assert trusted_network("10.0.0.0/8") == ipaddress.ip_network("10.0.0.0/8")
    assert public_origin("HTTPS://Faces.example.org:443/") == "https://faces.example.org"
    assert (root_path("/faces/"), root_path("/"), root_path("")) == ("/faces", "", "")


def test_nobody_dodges_the_rate_or_the_brake_by_a_header(start):
    service = start(rate=20)
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        answers = [client.get("/model", headers={"X-Forwarded-For": f"10.0.0.{i}"}).status_code for i in range(40)]
    assert 20 <= answers.count(200) < 30
    guarded = start(tokens=TOKENS)
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        answers = [
            client.get("/model", headers={"X-Forwarded-For": f"10.0.0.{i}", "Authorization": "Bearer no"}).status_code
            for i in range(70)
        ]
    assert 60 <= answers.count(401) < 70


def test_an_origin_and_a_path_of_its_own(start):
    service = start(tokens=TOKENS, origins=("https://faces.example.org",), root_path="/faces")
    with httpx.Client(base_url=service.url, trust_env=False, headers=HEADERS) as client:
        assert client.get("/subjects", headers={"Origin": "https://faces.example.org"}).status_code == 200
        assert client.get("/subjects", headers={"Origin": "https://evil.example"}).status_code == 403
        for prefix in ("", "/faces"):
            assert client.get(f"{prefix}/subjects").status_code == 200
            assert 'href="web/style.css"' in client.get(f"{prefix}/").text
            assert client.get(f"{prefix}/web/style.css").status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/faces"}]


class Proxy:
    """A real proxy over the service, as the documentation configures it."""

    def __init__(self, command, url):
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.url = url

    def client(self, source="127.0.0.1", **options):
        transport = httpx.HTTPTransport(verify=False, local_address=source)
        return httpx.Client(base_url=self.url, transport=transport, headers=HEADERS, timeout=20, **options)

    def wait(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.client() as client:
                    client.get("/healthz")
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        self.process.terminate()
        pytest.fail(f"the proxy did not start: {self.process.communicate()[1][-2000:]}")

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=20)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _certificate(folder):
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "faces.example.org")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    (folder / "faces.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "faces.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _block(kind, starts):
    [found] = [b for b in re.findall(rf"```{kind}\n(.*?)```", DOCS, re.S) if b.startswith(starts)]
    return found


def _nginx(service, folder, block):
    port = _free_port()
    _certificate(folder)
    server = block.replace("127.0.0.1:8000", service.url.removeprefix("http://")).replace("/etc/ssl", str(folder))
    server = server.replace("listen 443", f"listen 127.0.0.1:{port}")
    temp = "".join(
        f"{part}_temp_path {folder}/{part};\n" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temp}{server}}}\n"
    )
    return Proxy([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], f"https://127.0.0.1:{port}")


def _caddy(service, folder, block):
    port = _free_port()
    site = block.replace("127.0.0.1:8000", service.url.removeprefix("http://"))
    site = site.replace("faces.example.org", f"http://127.0.0.1:{port}")
    (folder / "Caddyfile").write_text("{\n admin off\n auto_https off\n}\n" + site)
    command = [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    return Proxy(["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}", *command],
                 f"http://127.0.0.1:{port}")  # fmt: skip


@pytest.fixture
def behind(start, tmp_path):
    """A service that trusts the proxy before it."""
    running = []

    def build(kind, block, **settings):
        service = start(
            tokens=TOKENS,
            trusted_proxies=(ipaddress.ip_network("127.0.0.1"),),
            audit=tmp_path / "audit.jsonl",
            **settings,
        )
        proxy = (_nginx if kind == "nginx" else _caddy)(service, tmp_path, block)
        running.append(proxy)
        proxy.wait()
        return proxy

    yield build
    for proxy in running:
        proxy.stop()


def _is_too_large(client, image):
    try:
        return client.post("/identify", files={"picture": image}).status_code == 413
    except (httpx.RemoteProtocolError, httpx.WriteError, httpx.ReadError):  # hung up on while still sending
        return True


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
        pytest.param("caddy", marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed")),
    ],
)
def test_behind_a_real_proxy_every_client_is_counted_for_itself(behind, draw, tmp_path, kind):
    block = _block("nginx", "server") if kind == "nginx" else _block("caddy", "faces")
    proxy = behind(kind, block)
    wrong = {"Authorization": "Bearer no"}
    with proxy.client("127.0.0.2") as client:
        forged = [
            client.get("/model", headers=wrong | {"X-Forwarded-For": f"10.0.0.{i}"}).status_code for i in range(70)
        ]
    assert 60 <= forged.count(401) < 70
    with proxy.client("127.0.0.3") as client:
        assert client.get("/model", headers=wrong).status_code == 401  # 127.0.0.2's brake is not everybody's
        assert client.get("/subjects", headers={"Origin": proxy.url}).status_code == 200
        assert client.get("/subjects", headers={"Origin": "https://evil.example"}).status_code == 403
        found = client.post("/identify", files={"picture": draw.jpeg(draw.RED)})
        assert (found.status_code, len(found.json()["faces"])) == (200, 1)
        assert _is_too_large(client, bytes(17_000_000))
        assert client.get("/web/app.js").status_code == 200
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {line["address"] for line in lines if line.get("status") == 200} == {"127.0.0.3"}


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_below_a_path_of_a_real_nginx(behind):
    inner = _block("nginx", "location")
    server = _block("nginx", "server")
    block = server[: server.index("    location")] + inner + "}\n"
    proxy = behind("nginx", block, root_path="/faces")
    with proxy.client() as client:
        assert client.get("/faces/subjects").json()["total"] == 0
        assert client.get("/faces/web/app.js").status_code == 200
        moved = client.get("/faces")
        assert (moved.status_code, moved.headers["location"]) == (301, f"{proxy.url}/faces/")
