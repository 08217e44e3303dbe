"""verify, enroll, identify, forget, gallery, serve and doctor as a user types them, on a tiny ONNX model."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from visavis.cli import main
from visavis.cli.gallery import _CHANGES, _LOOKS, ACTIONS, CLOSED_ACTIONS
from visavis.deploy.client import Client, ServiceError
from visavis.deploy.gallery.encryption import KEY_VARIABLE
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError
from visavis.models.card import ModelCard, write_card
from visavis.vision.images import encode, read
from visavis.vision.preprocessing import PreprocessSpec


def run(capsys, *words):
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # argparse's own complaint
        status = stop.code
    said = capsys.readouterr()
    return status, said.out, said.err


def test_verify(capsys, model, people, tmp_path):
    status, out, _ = run(
        capsys, "verify", model, people / "Rosa/0.png", people / "Rosa/1.png", "--aligned", "--show", tmp_path / "o.png"
    )
    assert status == 0
    assert out.startswith("match: similarity 0.99")
    assert "threshold 0.9000 at FMR 0.001" in out
    assert (tmp_path / "o.png").stat().st_size > 1000
    words = ("verify", model, people / "Rosa/0.png", people / "Blau/1.png", "--aligned", "--exit-code", "--json")
    status, out, _ = run(capsys, *words)
    assert status == 1
    assert json.loads(out)["match"] is False
    status, out, _ = run(
        capsys, "verify", model.with_name("plain.onnx"), people / "Rosa/0.png", people / "Rosa/1.png", "--aligned"
    )
    assert status == 0
    assert out.startswith("undecided: similarity")
    assert "visavis calibrate MODEL" in out


def test_an_exported_file_takes_thresholds_calibrated_later_from_its_folder(capsys, model, people, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(model.with_name("plain.onnx").read_bytes())
    card = ModelCard(
        "colors", "fake", 3, PreprocessSpec(), weights_digest="e" * 64, thresholds={"1e-2": {"threshold": 0.7}}
    )
    words = ("verify", file, people / "Rosa/0.png", people / "Rosa/1.png", "--aligned")
    write_card(tmp_path, card.with_changes(weights_digest="f" * 64))
    assert run(capsys, *words)[1].startswith("undecided")
    write_card(tmp_path, card)
    assert "threshold 0.7000 at FMR 0.01" in run(capsys, *words)[1]


def test_enroll_identify_and_forget(capsys, model, people, tmp_path, place):
    file = place.address
    status, out, _ = run(capsys, "enroll", file, people, "--model", model, "--aligned", "--consent", "form 7")
    assert status == 0
    assert "6 pictures enrolled, 0 refused; the gallery holds 3 subjects" in out
    # An exported file that differs only in what was calibrated is the same model; it is remembered by the gallery.
    status, out, _ = run(capsys, "identify", file, people / "Grün/1.png", "--aligned", "--top", "1")
    assert status == 0
    assert "Grün, similarity" in out
    assert "FPIR about 0.003 with 3 subjects" in out
    gray = tmp_path / "gray.png"
    gray.write_bytes(encode(np.full((112, 112, 3), (140, 139, 141), np.uint8), ".png"))
    status, out, _ = run(capsys, "identify", file, gray, "--aligned", "--json", "--keep-unknown")
    assert json.loads(out)[0]["faces"][0]["match"] is None
    assert run(capsys, "gallery", file, "unknowns")[1] == "1 unknown faces, 0 groups at 0.9000\n"
    status, out, _ = run(capsys, "forget", file, "Grün", "--json")
    assert status == 0
    receipt = json.loads(out)["receipts"][0]
    assert (receipt["samples"], receipt["found"], receipt["complete"]) == (2, 0, True)
    assert run(capsys, "forget", file, "Grün")[0] == 2
    assert run(capsys, "forget", file, "--expired") == (0, "the gallery holds 2 subjects\n", "")


def test_looking_after_a_gallery(capsys, model, people, tmp_path, place):
    file = place.address
    run(capsys, "enroll", file, people, "--model", model, "--aligned")
    assert "3 subjects" in run(capsys, "gallery", file, "list")[1]
    assert json.loads(run(capsys, "gallery", file, "list", "RO", "--json")[1])[0]["name"] == "Rosa"
    assert "now called Rosalind" in run(capsys, "gallery", file, "rename", "Rosa", "Rosalind")[1]
    run(capsys, "enroll", file, people / "Blau", "--name", "Bleu", "--aligned")
    out = run(capsys, "gallery", file, "duplicates")[1]
    assert "Blau  =  Bleu ?" in out
    assert "1 pairs at or above 0.9000" in out
    assert "FPIR 0.5 (0.15 to 0.85): 2 of 4" in run(capsys, "gallery", file, "fpir")[1]
    assert "4 samples" in run(capsys, "gallery", file, "merge", "Blau", "Bleu")[1]
    assert "3 subjects can be found" in run(capsys, "gallery", file, "check")[1]
    assert run(capsys, "gallery", file, "export", tmp_path / "e.npz")[0] == 0
    run(capsys, "enroll", tmp_path / "h.db", people / "Blau", "--name", "Blau", "--aligned", "--model", model)
    assert "2 subjects, 4 samples" in run(capsys, "gallery", tmp_path / "h.db", "import", tmp_path / "e.npz")[1]
    listed = json.loads(run(capsys, "gallery", tmp_path / "h.db", "list", "--json")[1])
    assert {p["name"] for p in listed} == {"Blau", "Grün", "Rosalind"}
    (tmp_path / "bad.npz").write_bytes((tmp_path / "e.npz").read_bytes()[:500])
    status, _, err = run(capsys, "gallery", tmp_path / "h.db", "import", tmp_path / "bad.npz")
    assert status == 2
    assert "gallery export" in err


def test_what_the_command_line_does_is_in_the_audit_log(capsys, monkeypatch, model, people, tmp_path):
    gallery, log = str(tmp_path / "people.db"), tmp_path / "audit.jsonl"
    monkeypatch.setenv("VISAVIS_AUDIT", str(log))
    enroll = ["enroll", gallery, str(people), "--model", str(model), "--aligned"]
    probe = str(next((people / "Rosa").iterdir()))
    for words in (
        enroll,
        ["identify", gallery, probe, "--aligned"],
        ["gallery", gallery, "list"],
        ["gallery", gallery, "rename", "Blau", "Bleu"],
        ["gallery", gallery, "samples", "Bleu"],
        ["forget", gallery, "Bleu", "--sample", "1"],
        ["gallery", gallery, "merge", "Rosa", "Bleu"],
        ["forget", gallery, "Rosa"],
    ):
        assert main(words) == 0, words
    assert main(["forget", gallery, "Nobody"]) == 2
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(r["event"], r.get("subjects")) for r in records if "phase" not in r] == [
        ("enroll", [1, 2, 3]), ("identify", [3]), ("list", [1, 2, 3]), ("change", [1]), ("look", [1]),
        ("forget", [1]), ("merge", [1, 3]),
        ("forget", [3]), ("forget", None),
    ]  # fmt: skip
    assert records[-1]["failed"] == "UnknownSubject"
    assert [r["event"] for r in records if r.get("phase") == "begins"] == [
        "enroll", "change", "forget", "merge", "forget", "forget",
    ]  # fmt: skip
    assert {r["gallery"] for r in records} == {gallery}
    assert all(r["client"].startswith("cli:") for r in records)
    assert not any(name in log.read_text() for name in ("Rosa", "Blau", "Bleu", "Nobody"))
    assert main(["audit", "check", str(log)]) == 0
    capsys.readouterr()
    assert main(["forget", gallery, "Grün", "--audit", str(tmp_path)]) == 2
    assert "audit log" in capsys.readouterr().err
    assert main(["gallery", gallery, "list"]) == 0
    assert "Grün" in capsys.readouterr().out  # nothing is done that cannot be written


def test_samples_are_looked_at_taken_back_and_split(capsys, model, people, tmp_path, place):
    file = place.address
    run(capsys, "enroll", file, people, "--model", model, "--aligned")
    merged = run(capsys, "gallery", file, "merge", "Rosa", "Blau")[1]
    undo = merged.splitlines()[-1].removeprefix("to undo: visavis ").replace("'", "").split()
    samples = json.loads(run(capsys, "gallery", file, "samples", "Rosa", "--json")[1])
    assert len(samples) == 4
    assert all(s["quality"] > 0 for s in samples)
    assert "4 samples in 2 templates" in run(capsys, "gallery", file, "samples", "Rosa")[1]
    out = run(capsys, *undo)[1]
    assert "Rosa has 2 samples" in out
    assert "Blau has 2 samples" in out
    assert "Blau, similarity" in run(capsys, "identify", file, people / "Blau/0.png", "--aligned")[1]
    number = json.loads(run(capsys, "gallery", file, "samples", "Rosa", "--json")[1])[0]["sample"]
    status, out, _ = run(capsys, "forget", file, "Rosa", "--sample", number)
    assert status == 0
    assert "erased 0 subjects, 1 samples" in out
    for words in (("Rosa", "--sample", "999"), ("Rosa", "Blau", "--sample", "1"), ("--sample", "1", "--expired")):
        status, _, err = run(capsys, "forget", file, *words)
        assert (status, err.count("\n")) == (2, 1)
    assert json.loads(run(capsys, "gallery", file, "list", "ros", "--json")[1])[0]["samples"] == 1


def test_every_action_is_a_look_or_is_announced():
    assert {*ACTIONS, *CLOSED_ACTIONS} == {*_CHANGES, *_LOOKS}
    assert not {*_CHANGES} & {*_LOOKS}


def test_a_folder_is_followed_and_what_left_it_erased_when_asked(capsys, model, people, tmp_path, place):
    file = place.address
    enroll = ("enroll", file, people, "--aligned")
    run(capsys, *enroll, "--model", model)
    run(capsys, "enroll", file, people / "Blau/0.png", "--name", "Eve", "--aligned")
    assert json.loads(run(capsys, *enroll, "--sync", "--json")[1])["left"][0]["name"] == "Eve"
    run(capsys, "forget", file, "Eve")
    (people / "Rosa/0.png").rename(people / "Rosa/another name.png")
    (people / "Blau/1.png").unlink()
    for name in ("0.png", "1.png"):
        (people / "Grün" / name).unlink()
    (people / "Grün").rmdir()
    status, out, _ = run(capsys, *enroll, "--sync")
    assert status == 0
    assert "Blau: not there any more: 1.png" in out
    assert "Grün: not there any more: 0.png, 1.png, all of theirs" in out
    assert "Rosa: not there" not in out
    assert "0 pictures enrolled" in out
    assert "3 subjects" in run(capsys, "gallery", file, "list")[1]
    found = json.loads(run(capsys, *enroll, "--sync", "--delete", "--json")[1])
    assert [(entry["name"], entry["all"]) for entry in found["left"]] == [("Blau", False), ("Grün", True)]
    assert found["complete"] is True
    listed = json.loads(run(capsys, "gallery", file, "list", "--json")[1])
    assert {p["name"]: p["samples"] for p in listed} == {"Rosa": 2, "Blau": 1}
    assert "not there" not in run(capsys, *enroll, "--sync")[1]
    status, _, err = run(capsys, *enroll, "--delete")
    assert status == 2
    assert "add --sync" in err


def test_a_time_limit_stays_until_it_is_changed_by_name(capsys, model, people, tmp_path, place):
    file = place.address
    words = ("enroll", file, people / "Rosa/0.png", "--name", "Rosa", "--aligned", "--model", model)
    run(capsys, *words, "--retention-days", "30", "--consent", "form 7")

    def ends():
        return json.loads(run(capsys, "gallery", file, "list", "--json")[1])[0]["expires"]

    first = ends()
    assert first is not None
    run(capsys, "enroll", file, people / "Rosa/1.png", "--name", "Rosa", "--aligned")
    assert ends() == first
    assert "time limit stay" in run(capsys, *words, "--retention-days", "90")[1]
    assert ends() == first
    run(capsys, "enroll", file, people / "Blau/0.png", "--name", "Blau", "--aligned", "--consent", "form 9")
    out = run(capsys, "gallery", file, "merge", "Blau", "Rosa")[1]
    assert "kept until" in out
    assert "form 9; form 7" in out
    assert (
        "form 8" in run(capsys, "gallery", file, "change", "Blau", "--retention-days", "90", "--consent", "form 8")[1]
    )
    assert ends() > first
    for days in ("nan", "inf", "-5", "0"):
        for verb in (("gallery", file, "change", "Blau"), words):
            status, _, err = run(capsys, *verb, f"--retention-days={days}")
            assert (status, err.count("\n")) == (2, 1)
            assert "retention period" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enroll", "{t}/n.db", "{p}"), "which model? add --model MODEL"),
        (("enroll", "{t}/n.db", "{p}/Rosa/0.png", "--model", "{m}"), "whose pictures are these?"),
        (("enroll", "{t}/n.db", "{p}/Rosa", "--model", "{m}"), "expected a folder per subject"),
        (("enroll", "{t}/n.db", "{p}", "--model", "{t}/none.onnx"), "no such file or folder"),
        (("enroll", "{t}/no/n.db", "{p}", "--model", "{m}", "--aligned"), "cannot be opened"),
        (("identify", "{t}/n.db", "{p}/Rosa/0.png", "--model", "{m}"), "no such gallery"),
        (("forget", "{t}/n.db", "Rosa"), "no such gallery"),
        (("forget", "{t}/n.db"), "whom?"),
        (("gallery", "{t}/n.db", "lst"), "did you mean 'list'"),
        (("gallery", "{t}/n.db", "rename", "Rosa"), "required: NEW; see: visavis gallery GALLERY rename --help"),
        (("gallery", "{t}/n.db", "list", "--min-size", "3"), "does not know --min-size"),
        (("gallery", "{t}/n.db", "adopt", "Rosa", "first"), "NUMBER: invalid int value"),
        (("verify", "{m}", "{p}/Rosa/0.png", "{t}/none.png", "--aligned"), "cannot read the picture"),
        (
            ("verify", "{m}", "{p}/Rosa/0.png", "{p}/Blau/0.png", "--aligned", "--fmr", "1e-5"),
            "calibrated at the false match rates",
        ),
        (("verify", "{m}", "{p}/Rosa/0.png", "{p}/Blau/0.png", "--detector", "haar"), "expected a detector as"),
        (("serve", "{t}/n.db", "--model", "{m}", "--host", "0.0.0.0"), "no token is set"),
        (("serve", "{t}/n.db", "--model", "{m}", "--tls-cert", "x"), "both --tls-cert and --tls-key"),
        (("serve", "{t}/n.db", "--model", "{m}", "--port", "70000"), "between 0 and 65535"),
    ],
)
def test_mistakes_get_one_line(capsys, monkeypatch, model, people, tmp_path, words, said):
    monkeypatch.delenv("VISAVIS_TOKEN", raising=False)
    status, out, err = run(capsys, *(word.format(t=tmp_path, p=people, m=model) for word in words))
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "n.db").exists()


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_says_what_it_takes(capsys, action):
    status, out, _ = run(capsys, "gallery", "people.db", action, "--help")
    assert status == 0
    assert f"usage: visavis gallery GALLERY {action}" in out
    assert "--json" in out
    words = {"rename": ("OLD", "NEW"), "adopt": ("NAME", "NUMBER", "--consent"), "fpir": ("--threshold", "--fmr")}
    assert all(word in out for word in words.get(action, ()))


def test_unknown_faces_are_grouped_and_become_subjects(capsys, model, people, tmp_path, place):
    file = place.address
    run(capsys, "enroll", file, people / "Rosa", "--name", "Rosa", "--aligned", "--model", model)
    rng = np.random.default_rng(0)
    strangers = []
    for k, color in enumerate(((40, 40, 220), (40, 220, 40))):
        for i in range(6):
            crop = np.clip(np.array(color) + rng.integers(-9, 9, 3) + rng.integers(-20, 20, (112, 112, 3)), 0, 255)
            strangers.append(tmp_path / f"{k}{i}.png")
            strangers[-1].write_bytes(encode(crop.astype(np.uint8), ".png"))
    keep = ("--aligned", "--keep-unknown", "--keep-crops")
    status, out, _ = run(capsys, "identify", file, *strangers, *keep)
    assert status == 0
    assert "unknown (number 1)" in out
    again = json.loads(run(capsys, "identify", file, strangers[3], strangers[0], *keep, "--json")[1])
    assert [a["faces"][0]["unknown"] for a in again] == [4, 1]  # kept once
    seen = json.loads(run(capsys, "identify", file, strangers[7], "--aligned", "--json")[1])[0]["faces"][0]
    assert seen["like_unknown"] == {"unknown": 8, "similarity": pytest.approx(1, abs=1e-5)}
    assert "unknown, like unknown 8" in run(capsys, "identify", file, strangers[7], "--aligned")[1]
    found = json.loads(run(capsys, "gallery", file, "unknowns", "--min-size", "4", "--json")[1])
    assert found["unknown"] == 12
    groups = sorted(sorted(c["unknowns"]) for c in found["clusters"])
    assert groups == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    assert min(c["lowest_similarity"] for c in found["clusters"]) > 0.95
    sheet = tmp_path / "sheet.png"
    out = run(capsys, "gallery", file, "unknowns", "--show", sheet)[1]
    assert f"12 faces shown in {sheet}" in out
    assert read(sheet).shape[0] > 200
    assert "Blau: 6 samples" in run(capsys, "gallery", file, "adopt", "Blau", *groups[0])[1]
    assert "Blau, similarity" in run(capsys, "identify", file, strangers[0], "--aligned")[1]
    assert run(capsys, "gallery", file, "adopt", "Blau", "1")[0] == 2
    samples = json.loads(run(capsys, "gallery", file, "samples", "Blau", "--json")[1])
    assert [s["source"] for s in samples] == [f"0{i}.png" for i in range(6)]
    assert all(s["crop"] and 0 < s["quality"] <= 1 for s in samples)
    assert "0 unknown faces erased" in run(capsys, "gallery", file, "drop-unknowns", "--older-than", "1")[1]
    assert run(capsys, "gallery", file, "drop-unknowns", "--older-than", "nan")[0] == 2
    assert "1 unknown faces erased" in run(capsys, "gallery", file, "drop-unknowns", "7")[1]
    assert "5 unknown faces erased" in run(capsys, "gallery", file, "drop-unknowns")[1]
    status, _, err = run(capsys, "identify", file, strangers[0], "--keep-crops")
    assert status == 2
    assert "add --keep-unknown" in err


def test_doctor_never_fails(capsys):
    status, out, _ = run(capsys, "doctor", "--torch-seconds", "0.01")
    assert status == 0
    assert "CPUExecutionProvider" in out
    status, out, _ = run(capsys, "doctor", "--json", "--torch-seconds", "0.01")
    found = json.loads(out)
    assert status == 0
    assert found["cores_usable"] >= 1
    assert found["extras"]["default"]["packages"]["numpy"] == np.__version__
    assert "torch" in found
    assert found["detector"]["mtcnn"] in ("ready", "no weights")


def test_the_service_starts_answers_its_client_and_ends_gracefully(model, people, tmp_path, place):
    """The real command in a process of its own, encrypted, with a token, stopped by SIGTERM in the middle of work."""
    token = "t" * 24
    environment = os.environ | {"VISAVIS_TOKEN": token, "OMP_NUM_THREADS": "1"}
    if place.kind == "file":
        environment[KEY_VARIABLE] = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
    words = [
        "serve",
        place.address,
        "--model",
        str(model),
        "--port",
        "0",
        "--audit",
        str(tmp_path / "audit.log"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "visavis", *words], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("0 subjects; page http://127.0.0.1:")
        url = line.split()[3].rstrip("/")
        with Client(url, token="wrong" * 5) as stranger, pytest.raises(ServiceError, match="401: a token is needed"):
            stranger.subjects()
        with Client(url, token=token) as client:
            assert client.healthy()
            images = sorted((people / "Rosa").iterdir())
            assert client.enroll("Rosa", images, aligned=True, consent="form")["added"] == 2
            assert client.identify(images[0], aligned=True)["faces"][0]["match"]["name"] == "Rosa"
            assert client.verify(images[0], images[1].read_bytes(), aligned=True)["match"] is True
            assert len(client.embed(images, aligned=True)["pictures"]) == 2
            number = client.subjects("ros")["subjects"][0]["id"]
            assert client.update(number, name="Rosalind")["name"] == "Rosalind"
            assert client.model()["encrypted"] is (place.kind == "file")
            assert client.forget("Rosalind")["complete"] is True
            with pytest.raises(ServiceError, match="404"):
                client.forget(number)
            with pytest.raises(DataError, match="cannot read"):
                client.identify(tmp_path / "none.png")
            client.enroll("Blau", [people / "Blau/0.png"], aligned=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert not (tmp_path / "g.db-wal").exists()
    with Client(url, token=token, timeout=2) as client, pytest.raises(ServiceError, match="cannot be reached"):
        client.subjects()


@pytest.mark.parametrize("verb", ["verify", "enroll", "identify", "forget", "gallery", "serve", "doctor"])
def test_help_imports_nothing_heavy(verb):
    code = (
        "import sys\nfrom visavis.cli import main\ntry:\n    main([sys.argv[1], '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'fastapi', 'torch', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: visavis" in done.stdout


def test_deploy_never_imports_torch():
    code = (
        "import sys, pkgutil, importlib, visavis.deploy\n"
        "for module in pkgutil.walk_packages(visavis.deploy.__path__, 'visavis.deploy.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_backup_export_and_import_make_the_same_gallery_and_check_tells_a_copy_that_lacks_its_log(
    capsys, model, people, tmp_path
):
    file, copy, fresh = tmp_path / "g.db", tmp_path / "copy.db", tmp_path / "fresh.db"
    run(capsys, "enroll", file, people, "--model", model, "--aligned", "--keep-crops")
    listed = run(capsys, "gallery", file, "list", "--json")[1]
    assert run(capsys, "gallery", file, "backup", copy)[0] == 0
    status, _, err = run(capsys, "gallery", file, "backup", copy)
    assert status == 2
    assert "is there already" in err
    run(capsys, "gallery", file, "export", tmp_path / "e.npz")
    assert run(capsys, "gallery", fresh, "import", tmp_path / "e.npz")[0] == 2
    status, out, _ = run(capsys, "gallery", fresh, "import", tmp_path / "e.npz", "--model", model)
    assert (status, out) == (
        0,
        f"3 subjects, 6 samples and 0 unknown faces added from {tmp_path / 'e.npz'}; 0 were there already\n",
    )
    for other in (copy, fresh):
        assert run(capsys, "gallery", other, "list", "--json")[1] == listed
        assert run(capsys, "gallery", other, "check")[0] == 0
        assert run(capsys, "identify", other, people / "Grün/1.png", "--aligned", "--model", model)[0] == 0
    with Gallery(file) as gallery:
        gallery.update("Rosa", consent="a note in the log")
        subprocess.run(["cp", str(file), str(tmp_path / "alone.db")], check=True)
    status, out, _ = run(capsys, "gallery", tmp_path / "alone.db", "check")
    assert status == 1
    assert "copied while in use, without its log" in out
    assert run(capsys, "gallery", tmp_path / "alone.db", "check")[0] == 0
