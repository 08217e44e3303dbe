"""Several services behind one nginx, as docs/service.md says: one gallery, one token file, one audit log."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from visavis.cli import main
from visavis.deploy.client import Client, ServiceError
from visavis.deploy.server.audit_check import check_audit

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream visavis {{ server 127.0.0.1:{first}; server 127.0.0.1:{second}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://visavis;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""


class Worker:
    def __init__(self, folder, model):
        words = ["serve", folder / "people.db", "--model", model, "--port", "0", "--trusted-proxy", "127.0.0.1"]
        words += ["--token-file", folder / "tokens", "--audit", folder / "audit.jsonl"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "visavis", *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment
        )
        self.port = int(self.process.stdout.readline().split("page http://127.0.0.1:")[1].split("/")[0])


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_two_workers_share_gallery_tokens_and_audit_log(model, people, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"write {'a' * 24}\n")
    tokens.chmod(0o600)
    workers = [Worker(tmp_path, model), Worker(tmp_path, model)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(
        CONFIGURATION.format(folder=tmp_path, first=workers[0].port, second=workers[1].port, port=port)
    )
    proxy = subprocess.Popen([NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url, token="a" * 24) as client:
            while not client.healthy():
                time.sleep(0.05)
            for name in ("Rosa", "Blau"):
                client.enroll(name, sorted((people / name).iterdir()), aligned=True)
            probe = people / "Rosa" / "0.png"

            def find(count, failures):
                with Client(url, token="a" * 24) as own:
                    for _ in range(count):
                        match = own.identify(probe, aligned=True)["faces"][0]["match"]
                        if match is None or match["name"] != "Rosa":
                            failures.append(match)

            failures = []
            threads = [threading.Thread(target=find, args=(25, failures)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            workers[1].process.send_signal(signal.SIGTERM)  # the other one answers on
            for thread in threads:
                thread.join()
            assert failures == []
            assert workers[1].process.wait(40) in (0, -signal.SIGTERM)
            tokens.write_text(f"read {'b' * 24}\n")
            with pytest.raises(ServiceError, match="401"):
                client.subjects()
        with Client(url, token="b" * 24) as client:
            assert client.subjects()["total"] == 2
    finally:
        for process in (proxy, *(worker.process for worker in workers)):
            process.terminate()
            process.wait(40)
    for worker in workers:
        worker.process.stdout.close()
    done = check_audit([tmp_path / "audit.jsonl"])
    assert done.findings == []
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [r["event"] for r in records].count("start") == [r["event"] for r in records].count("stop") == 2
    assert sum(r["event"] == "identify" and r["status"] == 200 for r in records) >= 100
    assert {r["status"] for r in records if r["event"] == "refused"} == {401}
    assert main(["audit", "check", str(tmp_path / "audit.jsonl")]) == 0


def test_a_client_reaches_a_service_below_a_path(start, draw):
    service = start(root_path="/faces")
    with Client(f"{service.url}/faces") as client:
        assert client.healthy()
        assert client.enroll("Rosa", [draw.jpeg(draw.RED)])["added"] == 1
        assert client.identify(draw.jpeg(draw.RED))["faces"][0]["match"]["name"] == "Rosa"
    assert httpx.get(f"{service.url}/faces/docs").status_code == 200
