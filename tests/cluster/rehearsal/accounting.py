"""What a Slurm that keeps accounts needs besides: a MariaDB of its own, and slurmdbd."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import slurm
from daemons import Daemon, answers, bring_up, log_tail, running_pid
from state import RehearsalError, State, make_folder, write_template

MARIADB_PORT = 16306
SLURMDBD_PORT = 16829
DATABASE = "slurm_acct_db"
ACCOUNTING = f"""
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={{address}}
AccountingStoragePort={SLURMDBD_PORT}
AccountingStoragePass={{socket}}
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5"""


def bring_up_accounting(state: State) -> bool:
    """Start MariaDB, slurmdbd and the Slurm that writes to it; tell whether one was started."""
    slurm.configure(
        state,
        slurm.ACCOUNTED,
        ACCOUNTING.format(socket=slurm.munge_socket(state), address=slurm.address()[0]),
    )
    started = _bring_up_mariadb(state)
    started |= _bring_up_slurmdbd(state)
    started |= slurm.bring_up_slurm(state, slurm.ACCOUNTED)
    return started


def _bring_up_mariadb(state: State) -> bool:
    folder = make_folder(state.data / "mariadb", "mysql", 0o700)
    run = make_folder(state.run / "mariadb", "mysql", 0o700)
    # --no-defaults has to come first: nothing of the host's settings is read.
    common = ["--no-defaults", "--user=mysql", f"--datadir={folder}/data"]
    if not (folder / "data" / "mysql").is_dir():
        _install_database(common, state.logs / "mariadb-install.log")
    mariadb = Daemon(
        name="mariadb",
        command=[
            *("/usr/sbin/mariadbd", *common, f"--port={MARIADB_PORT}", "--bind-address=127.0.0.1"),
            *(f"--socket={run}/socket", f"--pid-file={run}/pid", "--skip-log-bin"),
            # Enough for some thousand jobs, and what slurmdbd wants at least.
            *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
            *("--innodb-flush-log-at-trx-commit=2", "--performance-schema=OFF"),
        ],
        loopback_ports=(MARIADB_PORT,),
        ready=lambda: answers(
            "mariadb", "--no-defaults", f"--socket={run}/socket", "-e", "SELECT 1"
        ),
        stop_timeout_s=60,
    )
    return bring_up(state, mariadb)


def _install_database(options: list[str], log: Path) -> None:
    command = ["mariadb-install-db", *options, "--skip-test-db"]
    # Root comes in by the socket, being root; there is no password.
    command.append("--auth-root-authentication-method=socket")
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RehearsalError(f"mariadb-install-db failed. The end of {log}:\n{log_tail(log)}")


def _bring_up_slurmdbd(state: State) -> bool:
    conf = slurm.conf_path(state, slurm.ACCOUNTED)
    environment = {"SLURM_CONF": str(conf)}
    if running_pid(state, "slurmdbd") is None:
        listen, communication = slurm.address()
        password = secrets.token_hex(16)
        _give_access(state, password)
        write_template(
            "slurmdbd.conf",
            conf.with_name("slurmdbd.conf"),  # where slurmdbd looks for it
            0o600,  # slurmdbd insists
            address=listen,
            communication=communication,
            port=SLURMDBD_PORT,
            munge_socket=slurm.munge_socket(state),
            pid_file=state.run / "slurmdbd.pid",
            storage_port=MARIADB_PORT,
            storage_password=password,
            database=DATABASE,
        )
    slurmdbd = Daemon(
        name="slurmdbd",
        command=["/usr/sbin/slurmdbd", "-D"],
        environment=environment,
        loopback_ports=(SLURMDBD_PORT,),
        ready=lambda: answers("sacctmgr", "-n", "list", "cluster", environment=environment),
    )
    return bring_up(state, slurmdbd)


def _give_access(state: State, password: str) -> None:
    statements = [
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
        f"CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}'",
        f"GRANT ALL ON {DATABASE}.* TO slurm@'127.0.0.1'",
    ]
    # By standard input: a command line is everybody's to read.
    done = subprocess.run(
        ["mariadb", "--no-defaults", f"--socket={state.run}/mariadb/socket"],
        input=";\n".join(statements) + ";\n",
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RehearsalError(f"MariaDB refuses: {done.stderr.strip()}")
