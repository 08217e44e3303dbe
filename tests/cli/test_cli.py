import subprocess
import sys
import time

import pytest

from visavis.cli import FORMER_FLAGS, VERBS, _present_flags, build_parser, main


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_answers_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"visavis {verb}" in capsys.readouterr().out


def test_help_is_quick_and_imports_no_torch():
    times = []
    for verb in sorted(VERBS):
        begun = time.perf_counter()
        code = f"import sys; sys.argv = ['visavis', '{verb}', '--help']\nfrom visavis.cli import main\ntry: main()\n"
        code += "except SystemExit: pass\nassert not {'torch', 'cv2', 'numpy'} & set(sys.modules), sorted(sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        times.append(time.perf_counter() - begun)
    assert sorted(times)[len(times) // 2] < 0.5


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["unknown verb 'trian'", "did you mean 'train'"]),
        (["train"], ["RECIPE", "--resume", "visavis recipes"]),
        (["train", "nonsense"], ["unknown recipe 'nonsense'"]),
        (["train", "quickstart", "--optimizer.lrr", "1"], ["did you mean 'optimizer.lr'"]),
        (["train", "--resume", "no/such/run"], ["no run to resume"]),
        (["recipes", "nonsense"], ["unknown recipe 'nonsense'"]),
        (["evaluate", "no/such/model", "--data", "no/such/data"], ["no/such"]),
        (["synth"], ["OUT"]),
        (["recipes", "--bogus"], ["--bogus", "visavis recipes --help"]),
    ],
)
def test_bad_input_ends_with_2_and_one_line(argv, words, capsys):
    try:
        status = main(argv)
    except SystemExit as stop:  # argparse's own complaint
        status = stop.code
    assert status == 2
    printed = capsys.readouterr().err.strip()
    for word in words:
        assert word in printed
    assert "Traceback" not in printed


def test_import_brings_neither_torch_nor_cv2():
    code = "import sys, visavis; assert not {'torch', 'cv2', 'numpy'} & set(sys.modules); visavis.PreprocessSpec"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipes_are_listed_and_printed(capsys):
    assert main(["recipes"]) == 0
    assert "quickstart" in capsys.readouterr().out
    assert main(["recipes", "quickstart"]) == 0
    assert "synthetic" in capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(FORMER_FLAGS))
def test_former_flags_work_with_a_line_that_names_the_present_one(verb, capsys):
    parser = build_parser(verb)
    for former, now in FORMER_FLAGS[verb].items():
        words = _present_flags(verb, [verb, "MODEL", f"{former}=1", former])
        assert words == [verb, "MODEL", f"{now}=1", now]
        assert f"{former} is now called {now}" in capsys.readouterr().err
        assert now in _flags(parser, verb)
        assert former not in _flags(parser, verb)


def _flags(parser, verb):
    return parser._subparsers._group_actions[0].choices[verb]._option_string_actions


def test_without_a_verb_one_line_says_that_one_is_wanted(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "visavis: the following arguments are required: VERB; see: visavis --help\n"
