"""What Erlang and RabbitMQ want to find: where their programs are, and the environment of a private node.

It starts nothing and knows nothing of rbit. It runs in the process that tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import PORTS

DEBIAN_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def server_script() -> Path | None:
    """Return the script that runs a node in the foreground as any user, or None when there is none."""
    # Debian's command on PATH wants to be root or rabbitmq; the script behind it runs as anybody.
    if DEBIAN_SERVER.exists():
        return DEBIAN_SERVER
    found = shutil.which("rabbitmq-server")
    return Path(found).resolve() if found else None


def epmd_program() -> Path | None:
    """Return Erlang's port mapper, or None when there is none."""
    found = shutil.which("epmd")
    if found:
        return Path(found)
    erlang = shutil.which("erl")
    beside = Path(erlang).resolve().parent / "epmd" if erlang else None
    return beside if beside is not None and beside.exists() else None


def missing_reason() -> str | None:
    """Return why no node can be started on this machine, in words, or None when one can."""
    if server_script() is None:
        return "no rabbitmq-server on this machine (Debian, Ubuntu: apt-get install rabbitmq-server)"
    if epmd_program() is None:
        return "no epmd on this machine: is Erlang installed, and on PATH?"
    return None


def link_libraries(folder: Path, plugins: Sequence[str] = ()) -> str:
    """Put links to RabbitMQ's own libraries into a folder; return a line for rabbitmq-env.conf that has them used.

    Arguments:
        folder: the folder; it is made.
        plugins: names of the plugins that are linked too.

    Erlang looks for each module in each library, and there are three times as many with all plugins: to look
    there takes more than a third of the time to start. '' where they are not found beside the script.
    """
    script = server_script()
    libraries = script.resolve().parent.parent / "plugins" if script else folder
    if not list(libraries.glob("rabbit-*")):
        return ""
    (folder / "plugins").mkdir(parents=True)
    wanted = ("rabbitmq_prelaunch", *plugins)
    for library in libraries.iterdir():
        if not library.name.startswith("rabbitmq_") or library.name.startswith(wanted):
            (folder / "plugins" / library.name).symlink_to(library)
    return f'RABBITMQ_HOME="{folder}"\n'


def environment(folder: Path, name: str, port: int, distribution: int, epmd: int) -> dict[str, str]:
    """Return the whole environment of a node, of its epmd and of rabbitmqctl against it.

    Arguments:
        folder: where everything that they write goes.
        name: the node's name without its host.
        port, distribution, epmd: the TCP ports of AMQP, of Erlang's distribution and of epmd.
    """
    # Nothing of the caller's environment but PATH: a RABBITMQ_... of the machine must not reach the node.
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    rabbitmq = {
        "ADVANCED_CONFIG_FILE": folder / "advanced.config",
        # With this the script becomes the node instead of waiting for it, so that a kill meets the node.
        "ALLOW_INPUT": 1,
        "CONFIG_FILE": folder / "rabbitmq.conf",
        "CONFIG_FILES": folder / "conf.d" / "*.conf",
        "CONF_ENV_FILE": folder / "rabbitmq-env.conf",
        "CTL_DIST_PORT_MAX": PORTS.stop - 1,
        "CTL_DIST_PORT_MIN": PORTS.start,
        "CTL_ERL_ARGS": loopback,
        "DIST_PORT": distribution,
        "ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
        "LOGS": "-",
        "LOG_BASE": folder / "log",
        "MNESIA_BASE": folder / "mnesia",
        "NODENAME": f"{name}@localhost",
        "NODE_IP_ADDRESS": "127.0.0.1",
        "NODE_PORT": port,
        "PID_FILE": folder / "pid",
        "SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {loopback}",
        # Tables for a few processes and names; to make room for millions takes a third of the time to start.
        "SERVER_ERL_ARGS": "+P 32768 +t 1048576 +stbt db +zdbbl 128000 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    return {f"RABBITMQ_{key}": str(value) for key, value in rabbitmq.items()} | {
        "ERL_CRASH_DUMP_SECONDS": "0",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": str(folder),
    }
