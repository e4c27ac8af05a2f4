from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from espnet3.utils import metadata as metadata_module
from espnet3.utils.errors import (
    ConfigError,
    DataError,
    MissingStageError,
    StageSignatureError,
    StorageError,
    UnknownStageError,
)
from espnet3.utils.logging_utils import configure_logging
from espnet3.utils.ranks import process_rank
from espnet3.utils.reuse import Kept
from espnet3.utils.stage_endings import StageInterrupted
from espnet3.utils.stages_utils import resolve_stages, run_stages

STAGES = ["create_dataset", "train", "infer"]
RANK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "NNODES"),
    *("SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK", "PMI_SIZE"),
)


class System:
    """Stages that end in every way that a stage can end."""

    def __init__(self, folder: Path) -> None:
        self.stage_log_dirs = {"default": folder}
        self.training_config = OmegaConf.create({"seed": 3, "hub": {"hf_token": "hf_abcdefgh"}})
        self.called: list[str] = []

    def train(self) -> dict[str, float]:
        self.called.append("train")
        logging.getLogger("recipe").info("one step")
        thread = threading.Thread(target=logging.getLogger("recipe").info, args=["from a thread"])
        thread.start()
        thread.join()
        return {"loss": 0.5}

    def infer(self) -> None:
        self.called.append("infer")

    def measure(self) -> dict[str, Any]:
        return Kept(WER=3.0)

    def wants_argument(self, beam_size: int) -> None:
        raise AssertionError("never called")

    def type_error_inside(self) -> None:
        raise TypeError("int() argument must be a string")

    def bad_data(self) -> None:
        raise DataError("utt1: no audio")

    def exit_three(self) -> None:
        sys.exit(3)

    def exit_zero(self) -> None:
        sys.exit(0)

    def terminated(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def leaks_a_secret(self) -> None:
        logging.getLogger("recipe").info("token %s", os.environ["HF_TOKEN"])


@pytest.fixture
def system(hostile_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    configure_logging()
    return System(hostile_path)


def log_of(system: System, name: str) -> str:
    return (system.stage_log_dirs["default"] / f"{name}.log").read_text()


def metadata_of(system: System, name: str) -> dict[str, Any]:
    return json.loads((system.stage_log_dirs["default"] / f"{name}.metadata.json").read_text())


def test_stages_are_resolved_in_the_runners_order() -> None:
    assert resolve_stages(["infer", "train", "infer"], STAGES) == ["train", "infer"]
    assert resolve_stages(["infer", "all"], STAGES) == STAGES
    assert resolve_stages(None, STAGES) == STAGES


def test_an_unknown_stage_names_the_nearest_and_all() -> None:
    with pytest.raises(UnknownStageError, match=r"'trian'.*'train'.*create_dataset, train, infer"):
        resolve_stages(["all", "trian"], STAGES)


def test_a_stage_that_kept_its_output_is_recorded_so(system: System) -> None:
    run_stages(system, ["measure"])
    metadata = metadata_of(system, "measure")
    assert (metadata["results"], metadata["kept"]) == ({"WER": 3.0}, True)


def test_the_log_opens_with_the_configs(system: System) -> None:
    """The launcher passes over what a config's record goes on with, up to the next record."""
    run_stages(system, ["train"])
    records = log_of(system, "train")
    assert records.index("Config training:") < records.index("Command:")
    assert records.index("hf_token") < records.index("Command:")


def test_a_stage_that_ends_well_is_logged_and_recorded(system: System) -> None:
    run_stages(system, ["train", "infer"])
    assert system.called == ["train", "infer"]
    log = log_of(system, "train")
    assert "[train] === [START] stage: train ===" in log
    assert "[train] one step" in log
    assert "[train] from a thread" in log
    assert "[train] === [DONE] stage: train (" in log
    assert "infer" not in log
    metadata = metadata_of(system, "train")
    assert metadata["state"] == "done"
    assert metadata["exit"] == {"status": 0}
    assert (metadata["results"], metadata["kept"]) == ({"loss": 0.5}, False)
    assert metadata["seeds"] == {"training": 3}
    assert metadata["elapsed_s"] >= 0
    assert metadata["peak_memory_gb"] > 0
    assert metadata["packages"]["pytest"]


def test_metadata_says_running_while_the_stage_runs(system: System) -> None:
    seen = {}
    system.infer = lambda: seen.update(metadata_of(system, "infer"))  # type: ignore[method-assign]
    run_stages(system, ["infer"])
    assert seen["state"] == "running"
    assert "end_time" not in seen


def test_records_follow_the_documented_format(system: System) -> None:
    run_stages(system, ["train"])
    (line,) = [line for line in log_of(system, "train").splitlines() if line.endswith("one step")]
    host, when, place = line.split(" ")[0], line.split("(")[0], line.split("(")[1]
    assert host.startswith("[")
    assert time.strptime(" ".join(when.split(" ")[1:3]), "%Y-%m-%d %H:%M:%S")
    assert place.split(")")[0].startswith("test_stages_utils.py:")
    assert line.split(") ")[1] == "INFO:\t[train] one step"


def test_secrets_are_found_neither_in_the_log_nor_in_the_metadata(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    monkeypatch.setenv("SLURM_JWT", "jwt_of_the_user")
    configure_logging()
    run_stages(system, ["leaks_a_secret"])
    for path in system.stage_log_dirs["default"].iterdir():
        text = path.read_text()
        for secret in ("hf_from_environment", "hf_abcdefgh", "jwt_of_the_user"):
            assert secret not in text, path
    assert "token ***" in log_of(system, "leaks_a_secret")


@pytest.mark.parametrize(
    ("stage", "error", "ending", "in_log"),
    [
        ("type_error_inside", TypeError, {"status": 1}, "Traceback"),
        ("bad_data", DataError, {"status": 1, "message": "utt1: no audio"}, "utt1: no audio"),
        ("exit_three", SystemExit, {"status": 3}, "sys.exit(3)"),
    ],
)
def test_a_failure_is_recorded_and_raised_again(
    system: System, stage: str, error: type[BaseException], ending: dict[str, Any], in_log: str
) -> None:
    with pytest.raises(error):
        run_stages(system, [stage, "infer"])
    assert system.called == []
    log = log_of(system, stage)
    assert f"=== [FAILED] stage: {stage} (" in log
    assert in_log in log
    assert ("Traceback" in log) == (stage == "type_error_inside")
    metadata = metadata_of(system, stage)
    assert metadata["state"] == "failed"
    assert ending.items() <= metadata["exit"].items()


def test_sys_exit_zero_is_a_good_end(system: System) -> None:
    with pytest.raises(SystemExit):
        run_stages(system, ["exit_zero"])
    assert metadata_of(system, "exit_zero")["state"] == "done"


def test_a_signal_is_recorded(system: System) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StageInterrupted) as caught:
        run_stages(system, ["terminated"])
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "=== [INTERRUPTED] stage: terminated (" in log_of(system, "terminated")
    metadata = metadata_of(system, "terminated")
    assert (metadata["state"], metadata["exit"]["signal"]) == ("interrupted", "SIGTERM")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGUSR2])
def test_signals_after_the_first_leave_the_stages_clean_up_alone(
    system: System, first: int
) -> None:
    cleaned_up = []

    def stage() -> None:
        try:
            os.kill(os.getpid(), first)
        finally:
            for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
                os.kill(os.getpid(), signum)
            cleaned_up.append(first)

    system.infer = stage  # type: ignore[method-assign]
    with pytest.raises(StageInterrupted) as caught:
        run_stages(system, ["infer"])
    assert (caught.value.signum, cleaned_up) == (first, [first])
    assert metadata_of(system, "infer")["exit"]["signal"] == signal.Signals(first).name


def test_a_second_ctrl_c_does_not_wait_for_the_clean_up(system: System) -> None:
    def stage() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError

    system.infer = stage  # type: ignore[method-assign]
    with pytest.raises(StageInterrupted) as caught:
        run_stages(system, ["infer"])
    assert caught.value.signum == signal.SIGINT


def test_a_signal_while_the_ending_is_recorded_waits_until_it_is(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, str]] = []

    def handler(signum: int, _frame: Any) -> None:
        heard.append((signum, metadata_of(system, "train")["state"]))

    finish = metadata_module.finish_metadata

    def finish_and_signal(known: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish(known)

    monkeypatch.setattr(metadata_module, "finish_metadata", finish_and_signal)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        run_stages(system, ["train"])
        assert heard == [(signal.SIGTERM, "done")]
        with pytest.raises(DataError):
            run_stages(system, ["bad_data"])
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert metadata_of(system, "bad_data")["state"] == "failed"


def test_a_signal_before_the_stage_begins_is_recorded_as_its_ending(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = metadata_module.collect_configs

    def collect_and_signal(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return collect(*arguments)

    monkeypatch.setattr(metadata_module, "collect_configs", collect_and_signal)
    with pytest.raises(StageInterrupted):
        run_stages(system, ["train"])
    assert system.called == []
    assert metadata_of(system, "train")["state"] == "interrupted"


def test_handlers_are_gone_after_a_stage_whatever_happened(system: System) -> None:
    before = list(logging.getLogger().handlers)
    run_stages(system, ["infer"])
    with pytest.raises(DataError):
        run_stages(system, ["bad_data"])
    assert logging.getLogger().handlers == before


def test_all_stages_must_exist_before_the_first_starts(system: System) -> None:
    with pytest.raises(MissingStageError, match="System has no stage method: export"):
        run_stages(system, ["infer", "export"])
    assert system.called == []


def test_a_stage_with_arguments_is_told_to_use_yaml(system: System) -> None:
    with pytest.raises(StageSignatureError, match=r"beam_size.*YAML"):
        run_stages(system, ["infer", "wants_argument"])
    assert system.called == []


def test_a_dry_run_creates_nothing(system: System, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_stages(system, ["train", "infer"], argparse.Namespace(dry_run=True))
    assert "[DRY RUN] would run stage: train" in caplog.text
    assert system.called == []
    assert list(system.stage_log_dirs["default"].iterdir()) == []


def test_a_rerun_keeps_the_earlier_log(system: System) -> None:
    run_stages(system, ["train"])
    first = log_of(system, "train")
    run_stages(system, ["train"])
    assert log_of(system, "train1") == first
    assert metadata_of(system, "train1")["run_id"] != metadata_of(system, "train")["run_id"]


def test_requirements_are_written_on_request(system: System) -> None:
    run_stages(system, ["infer"], argparse.Namespace(write_requirements=True))
    written = (system.stage_log_dirs["default"] / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("pytest==") for line in written)


def test_ranks_above_zero_keep_no_log_unless_asked(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    run_stages(system, ["train"])
    assert list(system.stage_log_dirs["default"].iterdir()) == []
    system.training_config.stage_log_mode = "per_rank"
    run_stages(system, ["train"])
    assert "one step" in log_of(system, "train_rank1")
    assert metadata_of(system, "train_rank1")["state"] == "done"


def test_an_unknown_log_mode_is_refused(system: System) -> None:
    system.training_config.stage_log_mode = "both"
    with pytest.raises(ConfigError, match=r"'both'.*rank0 or per_rank"):
        run_stages(system, ["train"])


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"RANK": "2"}, 2),
        ({"LOCAL_RANK": "1"}, 1),
        ({"SLURM_PROCID": "1"}, 0),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "1"}, 0),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, 1),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, 3),
        ({"NODE_RANK": "1", "NNODES": "2"}, 1),
        ({"NODE_RANK": "0", "NNODES": "2", "LOCAL_RANK": "1"}, 1),
        ({"RANK": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, 0),
    ],
)
def test_the_rank_is_that_of_processes_that_work_together(
    variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank


def test_a_log_on_a_full_disk_fails_the_stage(
    system: System, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system.stage_log_dirs = {"default": small_disk}

    def fill_disk() -> None:
        with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        for _ in range(300):
            logging.getLogger("recipe").info("a line that finds no room")

    system.infer = fill_disk  # type: ignore[method-assign]
    with pytest.raises(StorageError, match=r"disk is full; free some space"):
        run_stages(system, ["infer"])
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert len(warnings) == 1
    assert metadata_of(system, "infer")["state"] != "done"


def test_a_signal_while_the_interpreter_ends_does_not_change_its_exit_status(
    tmp_path: Path,
) -> None:
    program = (
        "import atexit, os, signal, sys, time; from pathlib import Path\n"
        "from espnet3.utils.stages_utils import run_stages\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "class System:\n"
        "    stage_log_dirs = {'default': Path(sys.argv[1])}\n"
        "    def stage(self):\n"
        "        os.kill(os.getpid(), signal.SIGUSR2); time.sleep(30)\n"
        "run_stages(System(), ['stage'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert ran.returncode == 128 + signal.SIGUSR2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR2])
def test_a_killed_process_leaves_its_record(tmp_path: Path, signum: int) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from espnet3.utils.stages_utils import run_stages\n"
        "class System:\n"
        "    stage_log_dirs = {'default': Path(sys.argv[1])}\n"
        "    def sleep(self):\n"
        "        print('up', flush=True); time.sleep(30)\n"
        "run_stages(System(), ['sleep'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signum)
    assert process.wait(timeout=20) == 128 + signum
    process.stdout.close()
    metadata = json.loads((tmp_path / "sleep.metadata.json").read_text())
    assert metadata["exit"]["signal"] == signal.Signals(signum).name
