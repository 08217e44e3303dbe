"""Load on the service over the loopback: throughput and latency at 1, 8 and 64 clients, against the bare runtime.

    python benchmarks/serve.py --model MODEL [--image FILE] [--requests 300] [--soak 10000] [--route embed|identify]

The service is started as a user starts it; requests carry an aligned crop, so that what is measured beside the network
is HTTP, decoding, batching and searching. The bare runtime embeds the same crop in a loop, one and 64 at a time. On a
machine that does other work compare processor times, not clocks. After a warm-up the soak sends --soak requests and
compares the service's memory before and after. Prints a table and writes
results/serve.json.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
import httpx
import numpy as np

from visavis.deploy.recognizer import Recognizer
from visavis.models.providers import installed_packages
from visavis.vision.images import encode, read

CLIENTS = (1, 8, 64)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", help="an aligned crop; a generated one when left out")
    parser.add_argument("--requests", type=int, default=300, help="per number of clients")
    parser.add_argument("--soak", type=int, default=10_000, help="requests of the memory test; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "serve.json")
    args = parser.parse_args()
    recognizer = Recognizer.load(args.model)
    image = crop(args.image, recognizer)
    result: dict[str, Any] = about(args)
    result["bare"] = bare(recognizer, image)
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(args.model, folder)
        try:
            fill(url, image)
            result["load"] = {n: costed(process.pid, url, image, n, args.requests) for n in CLIENTS}
            for n, row in result["load"].items():
                row["share of bare, 64 at a time"] = row["requests_per_second"] / result["bare"]["crops_per_second_64"]
                print(f"{n:3} clients  {row}")
            if args.soak:
                result["soak"] = soak(url, image, args.soak, process.pid)
        finally:
            process.terminate()
            process.wait(60)
    harness.write(result, args.out, show=False)
    print(f"written: {args.out}")


def crop(path: str | None, recognizer: Recognizer) -> bytes:
    """An encoded crop of the size the model wants."""
    if path:
        return encode(read(path), ".jpg")
    from visavis.synthetic import face

    return encode(face(0, 1, 1, size=112)[0], ".jpg")


def bare(recognizer: Recognizer, image: bytes) -> dict[str, float]:
    """Crops per second of the runtime alone, one and 64 at a time, decoding included as every caller must decode."""
    one = recognizer.get(image, aligned=True)[0].crop[None]
    rates = {}
    for n in (1, 64):
        batch = np.repeat(one, n, 0)
        recognizer.embedder.embed(batch)
        times, begun = [], time.process_time()
        for _ in range(9):
            start = time.perf_counter()
            recognizer.embedder.embed(batch)
            times.append(time.perf_counter() - start)
        rates[f"crops_per_second_{n}"] = n / statistics.median(times)
        rates[f"median_ms_{n}"] = 1000 * statistics.median(times)
        rates[f"cpu_ms_{n}"] = 1000 * (time.process_time() - begun) / (9 * n)
    print(f"bare runtime  {rates}")
    return rates


def start(model: str, folder: str) -> tuple[subprocess.Popen[str], str]:
    """The service in a process of its own."""
    words = ["serve", f"{folder}/g.db", "--model", model, "--port", "0", "--rate", "0", "--threshold", "0.5"]
    process = subprocess.Popen([sys.executable, "-m", "visavis", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.split("page ")[1].split("/  ")[0]


def fill(url: str, image: bytes) -> None:
    """Somebody to find."""
    data = {"name": "somebody", "aligned": "true"}
    httpx.post(f"{url}/enroll", files={"pictures": image}, data=data, trust_env=False, timeout=60).raise_for_status()


def load(url: str, image: bytes, clients: int, requests: int) -> dict[str, Any]:
    """Requests to /identify from so many clients at once, each sending its next when the last was answered."""
    times: list[float] = []
    errors: list[str] = []
    each = max(4, requests // clients)
    barrier = threading.Barrier(clients + 1)
    address, request = prepared(url, image)

    def work() -> None:
        with socket.create_connection(address, timeout=120) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connection, request)
            barrier.wait()
            for _ in range(each):
                begun = time.perf_counter()
                status = ask(connection, request)
                times.append(time.perf_counter() - begun)
                if status != 200:
                    errors.append(str(status))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    p50, p95, p99 = (1000 * float(np.percentile(times, q)) for q in (50, 95, 99))
    return {
        "requests": len(times),
        "errors": len(errors),
        "requests_per_second": round(len(times) / seconds, 2),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
    }


def costed(process: int, url: str, image: bytes, clients: int, requests: int) -> dict[str, Any]:
    """`load`, and the service's own processor time for a request, which other work on the machine disturbs least."""
    before = cpu(process)
    row = load(url, image, clients, requests)
    row["service_cpu_ms"] = round(1000 * (cpu(process) - before) / (row["requests"] + clients), 2)
    return row


def cpu(process: int) -> float:
    """Processor seconds a process has taken, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepared(url: str, image: bytes) -> tuple[tuple[str, int], bytes]:
    """Where to connect, and the bytes of one request to /identify.

    They are made once: a client library takes 1.2 ms of the same cores for each request.
    """
    host, port = url.removeprefix("http://").split(":")
    form = httpx.Request("POST", f"{url}/identify", files={"picture": image}, data={"aligned": "true"})
    headers = "".join(f"{name}: {value}\r\n" for name, value in form.headers.items())
    return (host, int(port)), f"POST /identify HTTP/1.1\r\n{headers}\r\n".encode() + form.read()


def ask(connection: socket.socket, request: bytes) -> int:
    """One request over a connection kept alive; the answer's status, once its last byte is here."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)
    return int(head.split(b" ", 2)[1])


def soak(url: str, image: bytes, requests: int, process: int) -> dict[str, Any]:
    """Memory of the service over many requests from 8 clients, in ten parts."""
    load(url, image, 8, 400)
    sizes, errors, answered = [resident(process)], 0, 0
    for _ in range(10):
        row = load(url, image, 8, requests // 10)
        errors, answered = errors + row["errors"], answered + row["requests"]
        sizes.append(resident(process))
    last = sizes[-1] - sizes[5]
    growth = {"first to last, MB": (sizes[-1] - sizes[0]) / 1e6, "second half, MB": last / 1e6}
    print(f"soak: {answered} requests, {errors} errors, growth {growth}")
    return {"requests": answered, "errors": errors, "resident_mb": [round(s / 1e6, 1) for s in sizes], "growth": growth}


def resident(process: int) -> int:
    """Bytes of memory a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, commit."""
    return harness.about(
        packages=[*installed_packages(), "fastapi", "uvicorn"],
        what="service on the loopback, /identify with an aligned crop; clients on the same cores",
        arguments={"requests": args.requests, "soak": args.soak},
    )


if __name__ == "__main__":
    main()
