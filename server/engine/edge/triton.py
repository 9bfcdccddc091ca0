"""What the three steps share of Triton: its Python API, and that no step outlives the server.

`pb_utils` exists only inside Triton, so it is passed in.

Triton's stub notices the death of its server only while it waits for a request. A step that was sending a
metric or a response at that moment waits for an answer for ever, and keeps its memory.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from engine.core.errors import EngineError, InternalError, SettingsError

# The launcher's name of it, in the environment of Triton.
REGION_PREFIX: Final = "HALIMEDE_REGION_PREFIX"


def artifact_folder(args: Mapping[str, str]) -> Path:
    """The folder NAME_engine/VERSION that Triton is loading."""
    return Path(args["model_repository"], args["model_version"])


def engine_folder(args: Mapping[str, str], suffix: str) -> Path:
    """The folder NAME_engine next to the step NAME + suffix that Triton is loading."""
    folder = Path(args["model_repository"])
    return folder.with_name(folder.name.removesuffix(suffix) + "_engine")


def gpu_of(args: Mapping[str, str]) -> int | None:
    """The GPU that Triton gave the instance, None where its kind is not KIND_GPU."""
    return int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None


def instances_of(config: Mapping[str, Any]) -> int:
    """How many instances the model has, one on each GPU of a group."""
    groups = config.get("instance_group", [])
    counts = (int(group["count"]) * max(len(group.get("gpus", [])), 1) for group in groups)
    return max(sum(counts), 1)


def load_board_of(args: Mapping[str, str], environ: Mapping[str, str]) -> Path:
    """The file that the instances of a model share, among the shared-memory regions of their server.

    The launcher sets the prefix of its name, and removes all files with that prefix when the server has
    ended.
    """
    prefix = environ.get(REGION_PREFIX) or f"halimede_{os.getppid()}_"
    return Path("/dev/shm", f"{prefix}{args['model_name']}_{args['model_version']}.load")


def signals_of(environ: Mapping[str, str]) -> Path:
    """The path of the socket that reports disconnected clients to this process, among its server's regions.

    Without the launcher, the files of a killed server are not removed, and no launcher may mistake them for
    its own.
    """
    prefix = environ.get(REGION_PREFIX) or "halimede-"
    return Path("/dev/shm", f"{prefix}signals-{os.getpid()}-{secrets.token_hex(4)}")


def parameters_of(config: Mapping[str, Any], known: Collection[str]) -> dict[str, str]:
    """The parameters of a config.pbtxt, by name; raises SettingsError for an unknown one.

    Triton's own are in capitals, and are skipped.
    """
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    for name in parameters:
        if name not in known and not name.isupper():
            raise SettingsError(name, f"unknown parameter, must be one of {', '.join(known)}")
    return parameters


def answer_of(error: Exception, report: Callable[[BaseException], None]) -> EngineError:
    """The error that the client gets: a bug of ours is reported to the log, and becomes an internal error."""
    if isinstance(error, EngineError):
        return error
    report(error)
    return InternalError("request", f"could not be read ({type(error).__name__}); the server's log says more")


def logged(error: BaseException) -> str:
    """Where a fault came from, for the log. It quotes no prompt and no answer: the text of an error that is
    not ours could contain one, and is left out.
    """
    if isinstance(error, EngineError):
        return str(error)
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"


def to_triton_error(pb_utils: Any, error: EngineError) -> Any:
    return pb_utils.TritonError(str(error), getattr(pb_utils.TritonError, error.status))


def exit_with_parent() -> None:
    """From now on this process ends when its parent ends."""
    parent = os.pidfd_open(os.getppid())
    threading.Thread(target=_exit_after, args=(parent,), name="orphan-watch", daemon=True).start()


def end_server() -> None:
    """Have the server drain and stop; its supervisor starts another.

    Ending only this process is not enough: Triton would still report the model as ready, and never answer the
    requests that it was running.
    """
    os.kill(os.getppid(), signal.SIGTERM)


def _exit_after(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()
    # Not sys.exit: other threads may be stuck in calls that only the server could answer.
    os._exit(1)
