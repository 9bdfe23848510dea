"""Tests of behavior that scripts rely on: exit codes, stdout and error messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `groundup ARGUMENTS`, and return the exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


@pytest.fixture
def notes(tmp_path: Path, real_documents: list[str]) -> Path:
    """Return a directory that contains real text."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number, text in enumerate(real_documents):
        (folder / f"{number:03}.txt").write_text(text, encoding="utf-8")
    return folder


def test_no_arguments_shows_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert (code, out) == (2, "")
    assert "groundup run quickstart" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu", "x.toml"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run"], "Give it on the command line: RECIPE."),
        (["run", "none.toml"], "none.toml: No such file"),
        (["tokenize", "corpus"], "Give --out"),
        (["tokenize", "corpus", "--out", "x", "--vocab-size", "many"], "many"),
        (["tokenize", "corpus", "--out", "x", "--vocabsize", "3"], "did you mean '--vocab-size'?"),
        (["serve", "--model", "x"], "Give it without a flag: groundup serve [OPTIONS] [MODEL]..."),
        (["pretrain", "--token-shards", "x"], "Give it without a flag: groundup pretrain [OPTIONS] TOKEN_SHARDS"),
        (["tokenize", "corpus", "--out", "x", "--sample-bytes", "3"], "--set sample_bytes=VALUE"),
        (
            ["tokenize", "corpus", "--out", "x", "--set", "vocab_sise=3"],
            "unknown setting 'vocab_sise' in [tokenize]; did you mean 'vocab_size'?",
        ),
        (["pretrain", "x", "--out", "y", "--set", "pretrain.minutes=2"], 'Remove "pretrain." from the start.'),
        (["collect", "--set", "min_bytes"], "Write --set min_bytes=VALUE."),
        (["collect", "--folder", "", "--out", "x"], 'the current directory is "."'),
        (["collect", "--folder", "~no-such-user-here/x", "--out", "x"], "Write the path in full"),
        (["config", "tokenize", "--output", "~no-such-user-here/x"], "Write the path in full"),
        (["config", "pretrane"], "did you mean 'pretrain'?"),
        (["cache", "burn"], "burn"),
    ],
)
def test_wrong_usage_is_2_on_stderr_without_a_traceback(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert "error: " in err
    assert "fix: " in err or "did you mean" in err


def test_help_explains_arguments_and_marks_optional_ones(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "classify", "--help")
    assert "Usage: groundup classify [OPTIONS] MODEL [TEXT]...\n" in out
    assert out.index("\nArguments:\n") < out.index("\nOptions:\n")
    for command, usage in {"collect": "[RECIPE.toml]", "model list": "[NAME]", "apps list": "[NAME]"}.items():
        _, out, _ = call(capsys, *command.split(), "--help")
        assert f"Usage: groundup {command} [OPTIONS] {usage}\n" in out


def test_failure_is_1_and_with_json_an_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "tokenize", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--json")
    assert code == 1
    assert "Traceback" not in err
    error = json.loads(out)["error"]
    assert error["kind"] == "DataError"
    assert str(tmp_path / "none") in error["value"]
    assert error["fix"]


def test_wrong_usage_with_json_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "tokenize", "--json", "--wrong")
    assert (code, json.loads(out)["error"]["kind"]) == (2, "ConfigError")


def test_folder_to_corpus_by_flag_recipe_and_set(
    capsys: pytest.CaptureFixture[str], notes: Path, tmp_path: Path
) -> None:
    """The flag, the recipe and --set produce the same corpus."""
    recipe = tmp_path / "recipe.toml"
    folder = json.dumps(str(notes))
    recipe.write_text(f'name = "x"\n[collect]\nsources = [{{kind = "folder", path = {folder}}}]\n')
    sources = f'sources=[{{kind="folder",path={folder}}}]'
    results = []
    for number, way in enumerate((["--folder", str(notes)], [str(recipe)], ["--set", sources])):
        code, out, err = call(capsys, "collect", *way, "--out", str(tmp_path / f"corpus{number}"), "--json", "--quiet")
        assert code == 0, err
        results.append(json.loads(out))
        assert results[-1]["directory"] == str(tmp_path / f"corpus{number}")
    assert results[0]["outputs"] == results[1]["outputs"] == results[2]["outputs"]


def test_quiet_prints_nothing_on_success(capsys: pytest.CaptureFixture[str], notes: Path, tmp_path: Path) -> None:
    assert call(capsys, "collect", "--folder", str(notes), "--out", str(tmp_path / "c"), "--quiet") == (
        0,
        "",
        "",
    )


def test_recipe_without_the_stage_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Otherwise, the tables of the recipe would be reported as unknown settings."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[tokenize]\nvocab_size = 512\n")
    code, _, err = call(capsys, "collect", str(recipe), "--out", str(tmp_path / "c"))
    assert code == 2
    assert "no table [collect]" in err


def test_file_of_bare_keys_is_a_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "tokenize.toml"
    config.write_text("vocab_sice = 512\n")
    code, _, err = call(capsys, "tokenize", "corpus", "--out", "x", "--config", str(config))
    assert code == 2
    assert "did you mean 'vocab_size'?" in err


@pytest.mark.parametrize(("version", "message"), [(2, "no-corpus"), (9, "this release reads recipes of version 2")])
def test_file_of_bare_keys_may_have_the_version_of_a_recipe(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, version: int, message: str
) -> None:
    config = tmp_path / "tokenize.toml"
    config.write_text(f"version = {version}\nvocab_size = 512\n")
    corpus, out = str(tmp_path / "no-corpus"), str(tmp_path / "out")
    code, _, err = call(capsys, "tokenize", corpus, "--out", out, "--config", str(config))
    assert code != 0
    assert message in err


def test_output_is_written_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, printed, _ = call(capsys, "config", "tokenize")
    code, out, _ = call(capsys, "config", "tokenize", "--output", str(tmp_path / "deep" / "tokenize.toml"))
    assert (code, out) == (0, "")
    assert (tmp_path / "deep" / "tokenize.toml").read_text(encoding="utf-8") == printed


def test_cache_commands_list_and_clear_only_the_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.txt").write_text("mine")
    archives = tmp_path / "groundup" / "archives"
    archives.mkdir(parents=True)
    (archives / "a.zip").write_bytes(bytes(1500))
    (tmp_path / "groundup" / "link").symlink_to(outside)
    code, out, _ = call(capsys, "cache", "show")
    assert code == 0
    assert "1.50 kB  archives" in out
    code, out, _ = call(capsys, "cache", "clear", "--json")
    assert json.loads(out)["bytes"]["archives"] == 1500
    assert list((tmp_path / "groundup").iterdir()) == []
    assert (outside / "keep.txt").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="requires POSIX error numbers")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config", "tokenize", "--output", "a-file/x"], "a-file"),  # ENOTDIR or EEXIST
        (["config", "tokenize", "--output", "a-directory"], "a-directory: Is a directory"),
        (["config", "tokenize", "--output", "/proc/none/x"], "/proc/none"),
        (["config", "tokenize", "--output", "x" * 300], "Choose a shorter name"),
        (["collect", "--folder", "a-directory", "--out", "a-file/x"], "a-file/x: Not a directory"),
        (["run", "recipe.toml", "--runs", "a-file"], "a-file/named: Not a directory"),
        (["run", "recipe.toml", "--set", f"name={'x' * 300}"], "Choose a shorter name"),
    ],
)
def test_system_errors_have_no_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    """In an earlier release, such errors printed a traceback and requested a bug report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-directory" / "text.txt").write_text("some text")
    (tmp_path / "a-file").touch()
    (tmp_path / "recipe.toml").write_text(
        'name = "named"\n[collect]\nsources = [{kind = "folder", path = "a-directory"}]\n'
    )
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
    assert ".tmp" not in err


def test_a_system_error_without_a_path_has_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path, the user cannot fix the problem."""

    def broken() -> None:
        raise OSError("unclear")

    monkeypatch.setattr("groundup.core.files.cache_dir", broken)
    code, _, err = call(capsys, "cache", "show")
    assert (code, "Traceback" in err, "Please report it" in err) == (1, True, True)


def test_a_folder_instead_of_a_recipe_suggests_the_folder_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """New users often type `groundup collect notes/` first."""
    code, _, err = call(capsys, "collect", str(tmp_path))
    assert code == 2
    assert f"groundup collect --folder {tmp_path}" in err
    (tmp_path / "book.txt").write_text("Call me Ishmael.")
    assert f"--folder {tmp_path / 'book.txt'}" in call(capsys, "collect", str(tmp_path / "book.txt"))[2]
    (tmp_path / "recipe.toml").write_text("Call me Ishmael.")
    assert "--folder" not in call(capsys, "collect", str(tmp_path / "recipe.toml"))[2]
    assert "--folder" not in call(capsys, "collect", str(tmp_path / "none"))[2]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the user root may write to any file")
def test_no_permission_is_an_error_without_a_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, _, err = call(capsys, "config", "tokenize", "--output", str(tmp_path / "x"))
    assert code == 1
    assert "Traceback" not in err


def test_a_bug_prints_the_traceback_and_a_request_to_report_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("groundup.core.files.cache_dir", broken)
    code, _, err = call(capsys, "cache", "show")
    assert code == 1
    assert "Traceback" in err
    assert "Please report it" in err


@pytest.mark.skipif(os.name == "nt", reason="requires POSIX signals")
def test_ctrl_c_exits_with_130_and_a_hint(tmp_path: Path) -> None:
    """Reading from a pipe without a writer blocks, which simulates a long computation."""
    fifo = tmp_path / "recipe.toml"
    os.mkfifo(fifo)
    process = subprocess.Popen([sys.executable, "-m", "groundup", "run", str(fifo)], stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Run the same command again to continue" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="requires a POSIX shell")
def test_a_closed_pipe_causes_no_traceback() -> None:
    command = f"{sys.executable} -m groundup config pretrain | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "version = 2\n"
    assert done.stderr == ""
