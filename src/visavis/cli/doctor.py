"""visavis doctor: what this machine offers and what is missing."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--torch-seconds", type=float, default=20, metavar="S", help="how long torch may take (20)")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.system_info import inspect

    found = inspect(torch_seconds=args.torch_seconds)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    memory = ", ".join(
        f"{value:g} GB {'in all' if key == 'MemTotal' else 'free'}" for key, value in found["memory_gb"].items()
    )
    print(f"visavis    {found['visavis'] or 'not installed as a package'}, Python {found['python']}, {found['system']}")
    print(f"processor  {found['processor']['name']}: {' '.join(found['processor']['features']) or 'no known features'}")
    print(f"cores      {found['cores_usable']} usable of {found['cores']}")
    print(f"memory     {memory or 'unknown'}")
    print(f"disk       {found['disk_free_gb']:g} GB free here")
    print("extras")
    for extra, state in found["extras"].items():
        have = ", ".join(f"{name} {version}" for name, version in state["packages"].items() if version)
        print(f"  {extra:10} {have or '-'}")
        if state["missing"]:
            print(f"  {'':10} missing {', '.join(state['missing'])}; type: {state['type']}")
    print("runtimes")
    for name, devices in found["runtimes"].items():
        print(f"  {name:12} {devices if isinstance(devices, str) else ', '.join(devices)}")
    runtime = found["onnxruntime"]
    if runtime["packages"]:
        print(f"  {'exported':12} models run on {runtime['used']}")
    if runtime["type"]:
        print(f"  {'':12} {runtime['type']}")
    torch = found["torch"]
    if torch.get("devices"):
        print(f"  {'torch':12} {torch['version']}: {', '.join(torch['devices'])}; {torch['threads']} threads")
    else:
        print(f"  {'torch':12} {torch.get('problem') or 'not installed; to train, type: ' + torch['type']}")
    detector = found["detector"]
    print(f"detector   MTCNN: {detector['mtcnn']}{'; type: ' + detector['type'] if detector['type'] else ''}")
    return 0
