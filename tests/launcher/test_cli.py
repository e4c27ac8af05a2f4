"""The command line: what is whose, what a mistake gets, and what --help costs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.cli import command_parser, main, run_parser, split_arguments
from launcher.commands import COMMANDS
from launcher.typed import as_typed
from launcher.usage import HELP

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = (
    "argparse",
    "re",
    "torch",
    "hydra",
    "omegaconf",
    "submitit",
    "rich",
    "docker",
    "espnet3",
    "egs3",
)


@pytest.mark.parametrize(
    ("argv", "stages", "settings", "passed_on"),
    [
        (["run", "--stages", "train", "infer"], ["train", "infer"], [], []),
        (["--stages", "train", "stop_grace_s=3"], ["train"], ["stop_grace_s=3"], []),
        (["--training_config", "a.yaml"], None, [], ["--training_config", "a.yaml"]),
        (["--flag", "a=b", "env.A=1"], None, ["env.A=1"], ["--flag", "a=b"]),
        (["--flag=x", "env.A=1"], None, ["env.A=1"], ["--flag=x"]),
        (["--clus", "x"], None, [], ["--clus", "x"]),
    ],
)
def test_split_arguments(
    argv: list[str], stages: list[str] | None, settings: list[str], passed_on: list[str]
) -> None:
    options, found_settings, found_passed_on = split_arguments(argv)
    assert (options.stages, found_settings, found_passed_on) == (stages, settings, passed_on)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cluster", "slrum"], "there is no cluster 'slrum'. Did you mean 'slurm'?"),
        (["--container", "nome"], "there is no container 'nome'. Did you mean 'none'?"),
        (["stop_grace=3"], "no setting 'stop_grace'. Did you mean 'stop_grace_s'?"),
        (["trainer.max_steps=3"], "is set in its YAML files, such as conf/training.yaml."),
        (["status", "nowhere"], "there are no launches in"),
        (["stop_grace_s=soon"], "'stop_grace_s=soon': stop_grace_s is 'soon'; it is to be"),
        (["cluster.poll_s=[1"], "is not a setting"),
        (["launches_dir='~nosuchuser/x'"], "launches_dir=~nosuchuser/x: Could not determine home"),
        (["--stage", "fit", "score"], "--stage is short for --stages, and each job would run all"),
        (["--recipe", "nowhere"], "nowhere is not a recipe: no such folder"),
        (["sttaus"], "there is no command 'sttaus'. Did you mean 'status'?"),
        (["train", "--dry-run"], "there is no command 'train'. Commands: run, status"),
        (
            ["--stgaes", "fit"],
            "--stgaes is no option of the launcher either. Did you mean '--stages'",
        ),
        (["--partition", "main"], "is typed cluster.partition=… or stages.NAME.partition=…"),
        (
            ["--stages", "fit,score"],
            "--stages fit,score: separate stages with spaces: --stages fit",
        ),
        (["cancel", "--forc"], "cancel has no option --forc. Did you mean '--force'?"),
        (["status", "--force"], "status has no option --force. Options: --explain, --help, --json"),
        (["image", "pin", "cpu", "--sfi"], "image pin has no option --sfi. Did you mean '--sif'?"),
        (["wait", "--recipe"], "wait: argument --recipe: expected one argument. "),
        (["resume", "--cluster", "slurm"], "It runs on the cluster it ran on. To run elsewhere"),
        (["reproduce", "--container=none"], "launch anew, where stages keep what they find done"),
        (["resume", "--keep", "fit,score"], "separate stages with spaces: --keep fit score"),
        (["stages.scoer.mem_gb=1"], "no stage 'scoer' in this launch. Did you mean 'score'?"),
    ],
)
def test_a_mistake_is_one_message(
    argv: list[str],
    message: str,
    recipe_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(recipe_dir)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("launcher: ")
    assert "Traceback" not in said


def test_the_recipe_refuses_an_unknown_stage_in_its_own_words(recipe_dir: Path, launcher) -> None:
    done = launcher("--recipe", str(recipe_dir), "--stages", "fitt")
    assert done.returncode == 2
    assert "Unknown stage 'fitt'. Did you mean 'fit'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (recipe_dir / "exp").exists()


def test_dry_run_creates_nothing(recipe_dir: Path, launcher) -> None:
    before = sorted(recipe_dir.rglob("[!_]*"))
    done = launcher("--dry-run", cwd=recipe_dir)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line and line[0] != " "][-3:] == [
        "prepare",
        "fit, after prepare",
        "score, after fit",
    ]
    written = set(recipe_dir.rglob("[!_]*")) - set(before)
    assert {path for path in written if path.suffix != ".pyc"} == set()


def run_in_a_deleted_directory(gone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", str(gone), sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def test_a_deleted_working_directory_is_told_by_run_py(recipe_dir: Path, tmp_path: Path) -> None:
    config = str(recipe_dir / "conf" / "training.yaml")
    command = [str(recipe_dir / "run.py"), "--training_config", config, "--stages", "fit"]
    done = run_in_a_deleted_directory(tmp_path / "gone", *command)
    assert done.returncode == 1
    assert "The working directory was deleted. Change into one that is there." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["--dry-run"], ["status"], ["cancel"]])
def test_a_deleted_working_directory_is_told(tmp_path: Path, command: list[str]) -> None:
    gone = tmp_path / "gone"
    done = run_in_a_deleted_directory(gone, "-m", "launcher", *command)
    assert done.returncode == 2
    assert done.stderr == (
        f"launcher: the working directory, {gone}, was deleted. Change into one that is there.\n"
    )


def test_a_recipe_in_a_folder_whose_name_is_no_text(recipe_dir: Path) -> None:
    folder = recipe_dir.with_name("\udcff")
    recipe_dir.rename(folder)
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "--dry-run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert os.fsencode(folder) in done.stdout


def test_secrets_on_the_command_line_are_refused(recipe_dir: Path, launcher) -> None:
    run_py = recipe_dir / "run.py"
    flag = '    parser.add_argument("--hf_token")\n    args, stages'
    run_py.write_text(run_py.read_text().replace("    args, stages", flag, 1))
    for secret in (["--hf_token", "sekrit12345"], ["--hf_token=sekrit12345"]):
        done = launcher("--dry-run", *secret, cwd=recipe_dir)
        assert done.returncode == 2
        assert "launcher: --hf_token looks like a secret" in done.stderr
        assert "secrets='[HF_TOKEN]'" in done.stderr
        assert "sekrit12345" not in done.stderr


def test_masking_is_the_launchers_own_where_the_recipe_brings_its_framework(tmp_path: Path) -> None:
    (tmp_path / "espnet3").mkdir()
    (tmp_path / "espnet3" / "__init__.py").write_text("raise RuntimeError('not this one')")
    code = (
        "from launcher.masking import mask_arguments as m; print(m(['--hf_token', 'sekrit12345']))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['--hf_token', '***']\n", done.stderr


def test_missing_library_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, recipe_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(recipe_dir)
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    # What `sys.modules[name] = None` makes of an import, in the form that a real absence has.
    monkeypatch.setattr(
        "launcher.config.load_config",
        lambda *_, **__: (_ for _ in ()).throw(ModuleNotFoundError("x", name="omegaconf")),
    )
    assert main([]) == 1
    assert "lacks omegaconf. Type `make env`" in capsys.readouterr().err


def test_a_system_without_the_stages_method_is_told_without_log_lines(
    recipe_dir: Path, launcher
) -> None:
    run_py = recipe_dir / "run.py"
    run_py.write_text(run_py.read_text().replace('"score"]', '"score", "publish"]'))
    done = launcher("--recipe", str(recipe_dir), "--stages", "publish")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "launcher: tiny/asr/run.py: TinySystem has no stage method: publish. Add the method"
    )
    assert "INFO" not in done.stderr


def test_help_names_each_option_and_no_other() -> None:
    options = set(run_parser()._option_string_actions)
    synonyms = {"--dry_run"}
    of_run_py = {"--training_config", "--inference_config", "--metrics_config"}
    parsers = [command_parser(command) for command in COMMANDS]
    of_commands = {name for parser in parsers for name in parser._option_string_actions} - options
    named = set(re.findall(r"(?<!\S)--[a-z_-]+", HELP))
    assert named - of_run_py - {"--help"} - of_commands == options - synonyms
    assert max(map(len, HELP.splitlines())) <= 90


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_names_each_of_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"\n  {command} " in HELP
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    usage = shown.partition("\n\n")[0]
    example = shown.partition("\nexample:\n  python -m launcher ")[2]
    assert example.split()[0] == command
    options = shlex.split(example.partition(" -- ")[0])[1:]
    assert command_parser(command).parse_intermixed_args(options)
    for action in command_parser(command)._actions:
        assert action.help, action.option_strings or action.dest
        assert " ".join(action.help.split()) in " ".join(shown.split())
        takes_value = action.nargs != 0 and action.option_strings
        assert not takes_value or action.metavar, action.option_strings
        names = {*action.option_strings} - {"-h", "--help"}
        assert not names or any(re.search(rf"(?<!\S)\[?{name}\b", usage) for name in names), names
    assert COMMANDS[command][1] in " ".join(shown.split())


def test_the_examples_of_the_help_are_accepted(launcher) -> None:
    examples = HELP.partition("examples:\n")[2].splitlines()
    assert len(examples) == 3
    for example in examples:
        words = shlex.split(example)[3:]
        if words == ["status"]:
            continue  # there may be no launch yet
        words = [word for word in words if word not in ("--follow", "--dry-run")]
        done = launcher(*words, "--dry-run", cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from launcher.cli import main\n"
        "main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "usage: python -m launcher" in done.stdout


@pytest.mark.slow
def test_help_costs_at_most_three_times_an_empty_python() -> None:
    commands = {"pass": ["-c", "pass"], "help": ["-m", "launcher", "--help"]}
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(15):  # in turn, so that whatever else the machine does meets both
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            best[name] = min(best[name], time.perf_counter() - start)
    assert best["help"] <= 3 * best["pass"], best


def test_a_script_that_is_no_recipe_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.py").write_text("from pathlib import Path\nPath('trained').touch()\n")
    monkeypatch.chdir(tmp_path)
    assert main(["--dry-run", "--container", "none"]) == 2
    assert "run.py does not use the stage framework" in capsys.readouterr().err
    assert not (tmp_path / "trained").exists()


def test_what_will_be_missing_is_said_at_once(
    recipe_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(recipe_dir)
    monkeypatch.setenv("DEPLOY_KEY", "x")
    asked = ["--dry-run", "--container", "docker", "container.executable=/nonexistent/docker"]
    pin = "image=a.example/cpu@sha256:" + "d" * 64
    assert main([*asked, pin, "secrets=[HF_TOKN,HF_TOKEN,DEPLOY_KEY]"]) == 0
    said = capsys.readouterr().err
    assert "secrets that are not set here, so stages will lack them: HF_TOKN\n" in said
    assert "docker does not work here: there is no program '/nonexistent/docker' here" in said


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--container", "none", "image=cpu"], "leave out image=cpu"),
        (["--container", "none", "stages.fit.image=cpu"], "leave out stages.fit.image=cpu"),
        (["container=auto", "image=debian:12"], "stages are to run in debian:12, and cannot:"),
        (
            ["--container", "docker", "resources.gpus_per_node=1"],
            "prepare asks for GPUs, so image=auto takes 'gpu', and the image 'gpu' is not pinned",
        ),
    ],
)
def test_an_image_that_was_named_is_never_dropped(
    asked: list[str],
    message: str,
    recipe_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(recipe_dir)
    assert main([*asked, "--dry-run"]) != 0
    assert message in capsys.readouterr().err


def test_commands_in_messages_work_where_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "type python -m launcher status"
    folder = tmp_path / "en v" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))
    assert as_typed(said) == said
    monkeypatch.setenv("PATH", "/nonexistent")
    assert as_typed(said) == f"type '{folder}/python' -m launcher status"
    monkeypatch.chdir(tmp_path)
    assert as_typed(said) == "type 'en v/bin/python' -m launcher status"


@pytest.mark.parametrize(
    ("said", "of_make"),
    [
        ("Add --container none and it is", "Add CONTAINER=none and it is"),
        ("name it: --container apptainer. ", "name it: CONTAINER=apptainer. "),
        ("use --cluster local.", "use CLUSTER=local."),
        ("separate: --stages train infer", 'separate: STAGES="train infer"'),
        ("--stages fit,score: no", 'STAGES="fit,score": no'),
        ("Stages follow --stages, a", "Stages follow --stages, a"),
        ("wait for it with --queue, or end it", "wait for it with ARGS=--queue, or end it"),
        (
            "Or: x/python -m launcher doctor --cluster slurm\nor --cluster local",
            "Or: x/python -m launcher doctor --cluster slurm\nor CLUSTER=local",
        ),
    ],
)
def test_messages_name_options_as_they_were_typed(
    said: str, of_make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert as_typed(said) == said
    monkeypatch.setattr(sys.modules["__main__"].__spec__, "name", "launcher.make_run")
    assert as_typed(said) == of_make


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_launcher_that_is_ended_while_it_plans_leaves_nothing(
    signum: signal.Signals, recipe_dir: Path, tmp_path: Path
) -> None:
    run_py = recipe_dir / "run.py"
    begun, temporary = tmp_path / "begun", tmp_path / "tmp"
    temporary.mkdir()
    wait = f"import time, pathlib\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n"
    run_py.write_text(wait + run_py.read_text())
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", "--dry-run"],
        cwd=recipe_dir,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 30
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(temporary.iterdir())
        process.send_signal(signum)
    assert process.returncode == 128 + signum
    assert list(temporary.iterdir()) == []
