"""Private parts of Flower that this package depends on, and the versions they were tested on.

Flower documents ``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp`` and ``flwr.common.logger``;
everything else may change with any release, and is imported and accessed only here. The names of
``PRIVATE`` are imported on first use: a ClientApp process must not load the server's libraries.

This module imports nothing of its own package: ``fauno_flwr/deployment/warm_worker.py`` loads it by
path, in a process that must not have ``strategies`` in ``sys.modules``.
"""

import copy
import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flwr
from flwr.app import Error, Message, Metadata, RecordDict

if TYPE_CHECKING:
    from flwr.common.constant import ErrorCode as ErrorCode
    from flwr.proto.message_pb2 import (
        ConfirmMessageReceivedRequest as ConfirmMessageReceivedRequest,
    )
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest as PullAppMessagesRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse as PullAppMessagesResponse
    from flwr.supercore.cli.flower_superexec import flower_superexec as flower_superexec
    from flwr.supercore.constant import TaskType as TaskType
    from flwr.supercore.inflatable.inflatable_object import get_object_body as get_object_body
    from flwr.supercore.inflatable.inflatable_object import (
        get_object_children_ids_from_object_content as get_object_children_ids_from_object_content,
    )
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError as ObjectPushError
    from flwr.supercore.run import Run as Run
    from flwr.supercore.superexec.executor import ExecutionSpec as ExecutionSpec
    from flwr.supercore.superexec.executor import LaunchResult as LaunchResult
    from flwr.supercore.superexec.executor.subprocess_executor import (
        SubprocessExecutor as SubprocessExecutor,
    )
    from flwr.superlink.grid.http_grid import HttpGrid as HttpGrid
    from flwr.supernode.cli import flwr_clientapp as flwr_clientapp

TESTED_VERSIONS = ("1.41", "1.42")
REQUIREMENT = "flwr>=1.41,<1.43"

PRIVATE = {
    "ConfirmMessageReceivedRequest": "flwr.proto.message_pb2",
    "ErrorCode": "flwr.common.constant",
    "ExecutionSpec": "flwr.supercore.superexec.executor",
    "HttpGrid": "flwr.superlink.grid.http_grid",
    "LaunchResult": "flwr.supercore.superexec.executor",
    "ObjectPushError": "flwr.supercore.inflatable.inflatable_utils",
    "PullAppMessagesRequest": "flwr.proto.runtime_pb2",
    "PullAppMessagesResponse": "flwr.proto.runtime_pb2",
    "Run": "flwr.supercore.run",
    "SubprocessExecutor": "flwr.supercore.superexec.executor.subprocess_executor",
    "TaskType": "flwr.supercore.constant",
    "flower_superexec": "flwr.supercore.cli.flower_superexec",
    "flwr_clientapp": "flwr.supernode.cli",
    "get_object_body": "flwr.supercore.inflatable.inflatable_object",
    "get_object_children_ids_from_object_content": "flwr.supercore.inflatable.inflatable_object",
}


class FlowerVersionError(ImportError):
    """The installed Flower is not one that this package was tested with.

    Parameters
    ----------
    detail : str, optional
        What is missing in it.
    """

    def __init__(self, detail: str = "") -> None:
        first, last = TESTED_VERSIONS[0], TESTED_VERSIONS[-1]
        missing = f"{detail}; " if detail else ""
        super().__init__(
            f"strategies was tested with Flower {first} to {last}, this is {flwr.__version__}: "
            f"{missing}install {REQUIREMENT!r}"
        )


if ".".join(flwr.__version__.split(".")[:2]) not in TESTED_VERSIONS:
    raise FlowerVersionError


def __getattr__(name: str) -> Any:
    """Import a name of ``PRIVATE`` on first use."""
    if name not in PRIVATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = _load(PRIVATE[name], name)
    return value


def _load(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise FlowerVersionError(f"{module} has no {name}") from error


def _require(owner: Any, attribute: str) -> None:
    if not hasattr(owner, attribute):
        raise FlowerVersionError(
            f"{getattr(owner, '__name__', type(owner).__name__)} has no {attribute}"
        )


# ---- messages --------------------------------------------------------------------------------


def message_to_bytes(message: Message) -> bytes:
    """Serialise a message with its metadata, in Flower's own format."""
    return _load("flwr.common.serde", "message_to_proto")(message).SerializeToString()


def message_from_bytes(data: bytes) -> Message:
    """Read what :func:`message_to_bytes` has written."""
    proto = _load("flwr.proto.message_pb2", "Message").FromString(data)
    return _load("flwr.common.serde", "message_from_proto")(proto)


def records_to_bytes(records: RecordDict) -> bytes:
    """Serialise records, as a message or the state of a node holds them."""
    return _load("flwr.common.serde", "recorddict_to_proto")(records).SerializeToString()


def records_from_bytes(data: bytes) -> RecordDict:
    """Read what :func:`records_to_bytes` has written."""
    proto = _load("flwr.proto.recorddict_pb2", "RecordDict").FromString(data)
    return _load("flwr.common.serde", "recorddict_from_proto")(proto)


def set_metadata(message: Message, **fields: Any) -> None:
    """Overwrite read-only fields of a message's metadata, such as ``message_id``."""
    for name, value in fields.items():
        _require(message.metadata, f"_{name}")
        vars(message.metadata)[f"_{name}"] = value


def unavailable_reply(announced: Any, reason: str) -> Message:
    """Return the error message that stands for a reply whose contents cannot be read.

    Parameters
    ----------
    announced : protobuf message
        Metadata of the reply.
    reason : str
    """
    metadata = Metadata(
        run_id=announced.run_id,
        message_id="",
        src_node_id=announced.src_node_id,
        dst_node_id=announced.dst_node_id,
        reply_to_message_id=announced.reply_to_message_id,
        group_id=announced.group_id,
        created_at=announced.created_at,
        ttl=announced.ttl,
        message_type=_load("flwr.supercore.constant", "SYSTEM_MESSAGE_TYPE"),
    )
    code = _load("flwr.common.constant", "ErrorCode").REPLY_MESSAGE_UNAVAILABLE
    return _load("flwr.app.message", "make_message")(metadata, error=Error(code, reason))


# ---- runs and grids --------------------------------------------------------------------------


def set_identity(run_id: int, node_id: int, task_id: int) -> None:
    """Set the identity that messages are stamped with; only Flower's own processes have one."""
    identity = _load("flwr.supercore.task_identity", "TaskIdentity")
    identity.run_id, identity.node_id, identity.task_id = run_id, node_id, task_id


def empty_run(run_id: int) -> "Run":
    """Return a run without an app."""
    return __getattr__("Run").create_empty(run_id)


def runtime_client(grid: "HttpGrid") -> Any:
    """Return the client through which a grid calls the SuperLink's Runtime API."""
    _require(grid, "_runtime_client")
    return grid._runtime_client


def with_client(grid: "HttpGrid", client: Any) -> "HttpGrid":
    """Return a copy of a grid that calls the Runtime API through another client."""
    _require(grid, "_client")
    other = copy.copy(grid)
    other._client = client
    return other


def in_simulation() -> bool:
    """Return whether this process is one of Flower's simulation engine, a worker of Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


# ---- the SuperExec ---------------------------------------------------------------------------

SUPEREXEC, CLIENTAPP = (
    "flwr.supercore.superexec.run_superexec",
    "flwr.supernode.runtime.run_clientapp",
)
EXIT_HANDLER = "flwr.supercore.exit.exit_handler"
EXIT_HANDLERS = (EXIT_HANDLER, "registered_exit_handlers")
SPECIFIED = ("task_type", "runtime_api_address", "token", "insecure", "root_certificates_path")


def require_superexec() -> None:
    """Check every part of the SuperExec that a warm worker calls or replaces.

    Raises
    ------
    FlowerVersionError
        If one is missing, or has other parameters.
    """
    executor, spec = __getattr__("SubprocessExecutor"), __getattr__("ExecutionSpec")
    for name, parameters in (("launch", ("self", "spec")), ("reconcile", ("self",))):
        _require(executor, name)
        _require_parameters(getattr(executor, name), *parameters)
    _require_parameters(_load(CLIENTAPP, "install_from_fab"), "fab_file")
    _require_parameters(_load(CLIENTAPP, "register_signal_handlers"), "event_type")
    _require_parameters(_load(EXIT_HANDLER, "add_exit_handler"), "exit_handler")
    for name in (*SPECIFIED, "parent_pid"):
        if name not in inspect.signature(spec).parameters:
            raise FlowerVersionError(f"ExecutionSpec has no {name}")
    _require(__getattr__("LaunchResult"), "accepted")
    _require(__getattr__("TaskType"), "CLIENT_APP")
    for name in ("flower_superexec", "flwr_clientapp"):
        _require_parameters(__getattr__(name))
    for module, name in ((SUPEREXEC, "get_executor"), EXIT_HANDLERS, *APPS):
        _load(module, name)


def _require_parameters(function: Any, *names: str) -> None:
    """Raise an error unless a function takes these arguments by position, and needs no others."""
    _require(function, "__name__")
    parameters = inspect.signature(function).parameters.values()
    needed = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    if needed != list(names):
        raise FlowerVersionError(f"{function.__qualname__} needs {needed}, not {list(names)}")


def use_executor(make_executor: "Callable[[], SubprocessExecutor]") -> None:
    """Make ``flower-superexec`` start its tasks through another executor."""
    module = import_module(SUPEREXEC)
    _require(module, "get_executor")
    vars(module)["get_executor"] = lambda *_, **__: make_executor()


def forget_exit_handlers() -> None:
    """Drop what ``flwr_exit`` would call: in a fork, it closes connections of the parent."""
    _load(*EXIT_HANDLERS).clear()


def let_signals_end_apps() -> None:
    """Make ``flwr-clientapp`` leave signals alone: one ends it at once, without a word.

    Its SuperNode then answers with an error when the heartbeats have lapsed. Flower's own handler
    reports the task as failed instead, but no reply: the SuperNode waits for one for ever.
    """
    add = _load(EXIT_HANDLER, "add_exit_handler")

    def register(event_type: Any, *, exit_handlers: Sequence[Any] = (), **_: Any) -> None:
        for each in exit_handlers:
            add(each)

    vars(import_module(CLIENTAPP))["register_signal_handlers"] = register


APPS = (
    ("flwr.common.constant", "APP_DIR"),
    ("flwr.common.constant", "FAB_HASH_TRUNCATION"),
    ("flwr.supercore.utils", "get_flwr_home"),
)


def unpack_apps_once() -> None:
    """Make ``flwr-clientapp`` unpack and check an app only if it is not installed yet.

    Flower does so with every message, before it finds that the app's folder exists and uses that.
    """
    module = import_module(CLIENTAPP)
    install = _load(CLIENTAPP, "install_from_fab")
    folder, digits, home = (_load(*each) for each in APPS)

    def install_once(fab: bytes, **options: Any) -> Path:
        name = hashlib.sha256(fab).hexdigest()[:digits]
        found = list((home() / folder).glob(f"*.{name}"))
        return found[0] if found else install(fab, **options)

    vars(module)["install_from_fab"] = install_once
