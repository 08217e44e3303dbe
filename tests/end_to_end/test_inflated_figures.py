"""Wherever a figure of accuracy is made, it says so when people or pictures of its pairs were trained on."""

import json
import shutil

import cv2
import pytest

from visavis.cli import main
from visavis.data.validate.trained_on import FILE, read_trained_on
from visavis.models.card import read_card, write_card
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import read_metrics

SAID = "inflated figures: of 8 people judged 8 have names it was trained on (person_0, person_1, person_2 and 5 more)"


def recipe(source, pairs="", **more):
    return parse_recipe(
        {
            "data": {"source": str(source), "workers": 0},
            "preprocess": {"size": [32, 32]},
            "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
            "optimizer": {"lr": 0.05},
            "loop": {"batch_size": 8, "steps": 2, "device": "cpu", "keep": 1},
            "evaluate": {"source": str(pairs)},
            **more,
        }
    )


@pytest.fixture(scope="module")
def others(blob_folder, tmp_path_factory):
    """The same pairs of people whose names and pictures nobody has seen."""
    root = tmp_path_factory.mktemp("others")
    (root / "pairs.txt").write_text((blob_folder / "pairs.txt").read_text().replace("person", "stranger"))
    for path in (blob_folder / "images").glob("*/*.jpg"):
        name = path.parent.name.replace("person", "stranger")
        folder = root / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        image = cv2.imread(str(path))[::-1, :, ::-1].copy()
        cv2.imwrite(str(folder / path.name.replace("person", "stranger")), image)
    return root


@pytest.fixture(scope="module")
def run(blob_folder, tmp_path_factory):
    return train(recipe(blob_folder, blob_folder), tmp_path_factory.mktemp("run") / "run")


def test_training_says_it_in_its_log_its_metrics_and_its_cards(run):
    (judged,) = [line for line in read_metrics(run.folder) if "eval" in line]
    assert judged["warning"].startswith(SAID)
    log = (run.folder / "log.txt").read_text()
    assert f"WARNING {SAID}" in log
    assert "accuracy" in next(line for line in log.splitlines() if SAID in line and "INFO" in line)
    for folder in ("best", "last", "models/step-00000002"):
        assert read_card(run.folder / folder).notes["warning"] == judged["warning"]


def test_pairs_of_others_are_judged_without_a_word(blob_folder, others, tmp_path, capsys):
    made = train(recipe(blob_folder, others), tmp_path / "run")
    assert "inflated" not in (made.folder / "log.txt").read_text()
    assert not any("warning" in line for line in read_metrics(made.folder))
    assert "warning" not in read_card(made.model).notes
    assert main(["evaluate", str(made.folder), "--data", str(others), "--json", str(tmp_path / "a.json")]) == 0
    assert "inflated" not in capsys.readouterr().out
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["warnings"] == []
    assert report["training_overlap"]["training_images_searched"] == 48


def evaluated(model, data, tmp_path, capsys, *options):
    json_, html, md, tex = (tmp_path / f"report.{end}" for end in ("json", "html", "md", "tex"))
    files = [f"--json={json_}", f"--html={html}", f"--markdown={md}", f"--latex={tex}"]
    assert main(["evaluate", str(model), "--data", str(data), *files, "--bootstrap=0", *options]) == 0
    return capsys.readouterr().out, json.loads(json_.read_text()), html.read_text(), md.read_text(), tex.read_text()


@pytest.mark.parametrize("which", ["", "best", "--all"])
def test_an_evaluation_says_it_on_the_console_in_json_and_on_every_page(run, blob_folder, tmp_path, capsys, which):
    options = [which] if which == "--all" else []
    model = run.folder if options else run.folder / which
    out, report, html, md, tex = evaluated(model, blob_folder, tmp_path, capsys, *options)
    (said,) = report["warnings"]
    assert said.startswith(SAID)
    assert said.endswith("of 32 pictures 32 are training pictures (32 identical)")
    assert report["training_overlap"]["identical_images"] == 32
    assert out.count(said) == html.count(said) == md.count(said) == 1
    assert r"\textbf{inflated figures: of 8 people judged 8 have names it was trained on (person\_0" in tex
    assert html.index(said) < html.index('class="key"')


def test_a_copied_model_folder_and_its_export_say_it_too(run, blob_folder, tmp_path, capsys):
    model = shutil.copytree(run.model, tmp_path / "model")
    assert main(["export", str(model), "--pairs", str(blob_folder / "pairs.txt"), "--crops", "4"]) == 0
    assert SAID in capsys.readouterr().out
    assert read_card(model).exports["model.onnx"]["accuracy"]["warning"].startswith(SAID)
    out, *_ = evaluated(model / "model.onnx", blob_folder, tmp_path, capsys)
    assert SAID in out


def test_a_comparison_passes_it_on(run, blob_folder, tmp_path, capsys):
    evaluated(run.folder, blob_folder, tmp_path, capsys)
    report = str(tmp_path / "report.json")
    assert main(["compare", report, report]) == 0
    assert capsys.readouterr().out.count(f"unnamed: {SAID}") == 1
    assert main(["compare", report, report, "--versus", report, report]) == 0
    assert capsys.readouterr().out.count(f"unnamed: {SAID}") == 1


def test_a_threshold_calibrated_on_training_people_says_it_in_the_card(run, blob_folder, tmp_path, capsys):
    model = shutil.copytree(run.model, tmp_path / "model")
    evaluated(model, blob_folder, tmp_path, capsys, "--calibrate", "0.1")
    assert read_card(model).thresholds["1e-1"]["warnings"][0].startswith(SAID)


def test_what_lies_beside_other_weights_is_not_taken_for_theirs(run, blob_folder, tmp_path, capsys):
    model = shutil.copytree(run.model, tmp_path / "model")
    write_card(model, read_card(model).with_changes(notes={}))
    out, report, *_ = evaluated(model, blob_folder, tmp_path, capsys)
    assert "inflated" not in out
    assert report["training_overlap"] is None


def test_a_fine_tuned_model_remembers_what_its_first_one_was_trained_on(run, blob_folder, others, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text(
        recipe(others, others, finetune={"init_head": False}, init=str(run.folder)).to_yaml()
    )
    command = ["train", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "tuned")]
    assert (
        main([*command, "--evaluate.retention_source", str(blob_folder), "--evaluate.retention_pairs", "pairs.txt"])
        == 0
    )
    out = capsys.readouterr().out
    assert len(read_trained_on(tmp_path / "tuned").sets) == 2
    before_after = json.loads((tmp_path / "tuned" / "before_after.json").read_text())
    for part, who in (("own", "stranger_0"), ("old", "person_0")):
        assert who in before_after[part]["warning"]
        assert before_after[part]["warning"] in out
    out, *_ = evaluated(tmp_path / "tuned", blob_folder, tmp_path, capsys)
    assert SAID in out


def test_a_run_that_goes_on_does_not_look_again(blob_folder, tmp_path, monkeypatch):
    train(recipe(blob_folder, blob_folder), tmp_path / "run")
    before = (tmp_path / "run" / "last" / FILE).read_bytes()
    monkeypatch.setattr("visavis.train.trained_on.take_training_set", lambda *a, **k: pytest.fail("looked again"))
    train(resume_recipe(tmp_path / "run", ["--loop.steps=4"]), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "last" / FILE).read_bytes() == before
    assert read_metrics(tmp_path / "run")[-1]["warning"].startswith(SAID)


def test_names_alone_are_kept_where_no_fingerprints_are_wished(blob_folder, tmp_path, capsys):
    made = recipe(blob_folder, blob_folder)
    made.data.fingerprints = 0
    run = train(made, tmp_path / "run")
    assert read_metrics(run.folder)[-1]["warning"].startswith(
        "inflated figures, if the names mean the same people: of 8"
    )
    assert not len(read_trained_on(run.model).sets[0].pixels)


def test_a_classifier_judged_on_its_own_people_is_inflated_by_training_pictures_alone(blob_folder, tmp_path, capsys):
    names = [f"images/person_{i}/person_{i}_{k:04d}.jpg\tperson_{i}\n" for i in range(8) for k in range(1, 7)]
    seen, unseen = ([name for name in names if ("_0001.jpg" in name) == new] for new in (False, True))
    root = shutil.copytree(blob_folder, tmp_path / "data")
    for name, lines in (("train.txt", seen), ("valid.txt", unseen), ("mixed.txt", [*unseen, seen[0]])):
        (root / name).write_text("".join(lines))
    wanted = recipe(root / "train.txt", evaluate={"valid": str(root / "valid.txt")}, head={"keep_classifier": True})
    run = train(wanted, tmp_path / "run")
    assert not any("warning" in line for line in read_metrics(run.folder))
    command = ["evaluate", str(run.folder), "--protocol", "closed-set", "--classifier", "--data", str(root), "--pairs"]
    assert main([*command, str(root / "valid.txt")]) == 0
    assert "inflated" not in capsys.readouterr().out
    assert main([*command, str(root / "mixed.txt")]) == 0
    assert "inflated figures: of 9 pictures 1 are training pictures (1 identical)" in capsys.readouterr().out
