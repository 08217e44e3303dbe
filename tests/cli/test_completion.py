"""visavis completion: the script a shell is given knows the verbs, their options and choices; --version says which."""

import shutil
import subprocess

import pytest

from visavis import __version__
from visavis.cli import VERBS, main

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "visavis.bash"
    from contextlib import redirect_stdout

    with path.open("w") as file, redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["ver"], {"verify"}),
        (["c"], {"calibrate", "compare", "completion", "convert"}),
        (["calibrate", "--f"], {"--fmr"}),
        (["prepare", "a", "b", "--format", ""], {"jpg", "png", "webp"}),
        (["completion", ""], {"bash", "zsh", "tcsh"}),
    ],
)
def test_bash_completes_verbs_options_and_choices(script, typed, wanted):
    words = " ".join(f"'{word}'" for word in ["visavis", *typed])
    ask = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_visavis; echo "${{COMPREPLY[@]}}"'
    told = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert wanted <= set(told)
    assert all(word.startswith(typed[-1]) for word in told)


def test_every_verb_has_options_there(script):
    text = script.read_text()
    assert [verb for verb in VERBS if f"_shtab_visavis_{verb}_option_strings=" not in text] == []


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_theirs(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "calibrate" in capsys.readouterr().out


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"visavis {__version__}\n"
