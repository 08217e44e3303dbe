"""What hostile requests cost the service: CPU, memory at the peak, and memory that stays.

    python benchmarks/upload_bombs.py --model MODEL [--flood 10000] [--only NAME]

The service runs as a user starts it, in a process of its own whose CPU time and peak memory are read before and after
each request (Linux). Each bomb of hostile_images.py goes to /identify and is searched for faces; some requests that are
bombs as a whole follow. --flood sends so many of them, the quickest ones in turn from four clients, and compares the
memory before and after. Prints a table and writes results/upload_bombs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import httpx
from hostile_images import BOMBS, black, noise, png, saved

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="x"\r\n\r\n'


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--flood", type=int, default=0, help="hostile requests of the memory test")
    parser.add_argument("--only", default="", help="bombs with this in their name")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "upload_bombs.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(args.model, folder)
        try:
            with httpx.Client(base_url=url, trust_env=False, timeout=300) as client:
                result = about() | {"requests": measure(client, process.pid, args.only)}
                if args.flood:
                    result["flood"] = flood(url, client, process.pid, args.flood)
        finally:
            process.terminate()
            process.wait(60)
    if not args.only:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {args.out}")


def start(model: str, folder: str) -> tuple[subprocess.Popen[str], str]:
    """The service in a process of its own."""
    words = ["serve", f"{folder}/g.db", "--model", model, "--port", "0", "--rate", "0", "--threshold", "0.5"]
    process = subprocess.Popen([sys.executable, "-m", "visavis", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.split("page ")[1].split("/  ")[0]


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and what httpx sends, the ordinary one first."""
    yield "ordinary: 12 MP photograph", identify(saved(noise(300, 400).resize((4000, 3000)), "JPEG", quality=90))
    for name, make in BOMBS.items():
        yield name, identify(make())
    # Just below the limits.
    yield "png 20 MP 16-bit RGBA", identify(png(4470, 4470, color=6, bits=16))
    yield "png 20 MP palette with alpha", identify(png(4470, 4470, color=3))
    yield (
        "webp animation 20 MP",
        identify(saved(black(4470, 4470), "WEBP", save_all=True, append_images=[black(4470, 4470)])),
    )
    yield "avif 20 MP", identify(saved(black(4470, 4470), "AVIF", speed=10))
    yield "tiff 20 MP, one strip", identify(saved(black(4470, 4470), "TIFF", compression="tiff_deflate"))
    twenty = [("pictures", ("x", png(6300, 6300)))] * 20
    yield "20 pngs of 40 MP", {"url": "/embed", "files": twenty}
    yield "20 pngs of 2 MP", {"url": "/embed", "files": [("pictures", ("x", png(1410, 1410)))] * 20}
    yield (
        "20 jpegs of 2 MP noise",
        {
            "url": "/embed",
            "files": [("pictures", ("x", saved(noise(1410, 1410), "JPEG", quality=70)))] * 20,
        },
    )
    yield "20 walls of faces of 1.9 MP", walls()
    # Bodies.
    yield "multipart of carriage returns", body(HEAD + b"\r" * 15_900_000)
    yield "multipart of line ends", body(HEAD + b"\r\n" * 7_900_000)
    yield "multipart of near boundaries", body(HEAD + b"\r\n--" * 3_900_000)
    yield "multipart header of 15 MB", body(b"--b\r\nX: " + b"a" * 15_900_000)
    yield "multipart of 500,000 headers", body(b"--b\r\n" + b"X: a\r\n" * 2_500_000)
    yield "multipart of a million parts", body(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 250_000)


def identify(image: bytes) -> dict[str, Any]:
    """A picture for /identify."""
    return {"url": "/identify", "files": {"picture": ("x", image)}}


def body(data: bytes) -> dict[str, Any]:
    """Raw multipart."""
    return {"url": "/identify", "content": data, "headers": BOUNDARY}


def walls() -> dict[str, Any]:
    """Twenty pictures full of faces."""
    from hostile_images import faces

    image = saved(faces(1380, 1380, 60), "JPEG", quality=85)
    return {"url": "/embed", "files": [("pictures", ("x", image))] * 20}


def measure(client: httpx.Client, process: int, only: str) -> list[dict[str, Any]]:
    """Each request's CPU seconds and peak MB above those of the ordinary one."""
    rows: list[dict[str, Any]] = []
    ordinary: tuple[float, float] | None = None
    for name, request in requests():
        if only not in name and ordinary is not None:
            continue
        for _ in range(1 if ordinary else 3):
            seconds, megabytes, answer = cost(client, process, request)
        if ordinary is None:
            ordinary = seconds, megabytes
        row = {
            "request": name,
            "status": answer.status_code,
            "cpu_seconds": round(seconds, 2),
            "peak_mb": round(megabytes),
            "above_ordinary": [round(seconds - ordinary[0], 2), round(megabytes - ordinary[1])],
            "resident_mb": round(status(process, "VmRSS")),
            "said": answer.json().get("error", f"{len(answer.content):,} bytes")[:100],
        }
        rows.append(row)
        print(
            f"{name:42} {row['status']} {seconds:6.2f} s {megabytes:6.0f} MB, stays {row['resident_mb']:4} "
            f"{row['said'][:70]}",
            flush=True,
        )
    return rows


def cost(client: httpx.Client, process: int, request: dict[str, Any]) -> tuple[float, float, httpx.Response]:
    """CPU seconds, peak memory above what was held before in MB, and the answer."""
    Path(f"/proc/{process}/clear_refs").write_text("5")  # the peak begins anew
    before, seconds = status(process, "VmRSS"), cpu(process)
    answer = client.post(**request)
    return cpu(process) - seconds, status(process, "VmHWM") - before, answer


def status(process: int, field: str) -> float:
    """A figure of /proc/PID/status in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def cpu(process: int) -> float:
    """CPU seconds a process has taken, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flood(url: str, client: httpx.Client, process: int, count: int) -> dict[str, Any]:
    """Memory before and after many hostile requests."""
    chosen = [(name, request) for name, request in requests() if "content" not in request and "20 " not in name]
    quick = []
    for name, request in chosen:
        seconds, _, _ = cost(client, process, request)
        if seconds < 0.15 and sum(len(part[1]) for part in request["files"].values()) < 1_000_000:
            quick.append((name, request))
    heavy = [request for name, request in chosen if "40000x1000" in name or "progressive 40" in name or "36 MP" in name]
    before, sizes, left = status(process, "VmRSS"), [], count
    lock = threading.Lock()

    def work(turn: int) -> None:
        nonlocal left
        with httpx.Client(base_url=url, trust_env=False, timeout=300) as mine:
            while True:
                with lock:
                    left -= 1
                    here = left
                    if here % max(1, count // 10) == 0:
                        sizes.append(round(status(process, "VmRSS")))
                if here < 0:
                    return
                request = heavy[here % len(heavy)] if here % 200 == 0 else quick[(here + turn) % len(quick)][1]
                mine.post(**request)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = status(process, "VmRSS")
    answer = {
        "requests": count,
        "kinds": len(quick) + len(heavy),
        "seconds": round(time.monotonic() - begun),
        "before_mb": round(before),
        "after_mb": round(after),
        "resident_mb": sizes,
    }
    print(answer)
    return answer


def about() -> dict[str, Any]:
    """Machine and commit."""
    return harness.about(what="service on the loopback; CPU and peak memory of its process, read around each request")


if __name__ == "__main__":
    main()
