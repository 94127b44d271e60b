"""A deployment's grid that fetches replies beside the event loop: a slow upload stops nobody."""

import copy
import json
import threading
import time
from collections.abc import Callable, Iterable
from logging import WARNING
from typing import Any, TypeVar

import httpx
from flwr.app import Array, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
)
from flwr.superlink.grid.http_grid import HttpGrid

from strategies.checks import require_number
from strategies.grids import GridAround

T = TypeVar("T")


class TooLargeError(Exception):
    """A reply has more bytes than its receiver wants."""


class OneReply:
    """A client of the Runtime API to which one reply has come; it counts the bytes of it.

    Equal chunks of an array travel once: what is small on its way may be large when it is put
    together.

    Parameters
    ----------
    client : RuntimeHttpClient
    message, tree : protobuf messages
        The reply without its contents, and the ids of them.
    max_bytes : int
        Of what travels, and of what the arrays become.
    """

    def __init__(self, client: Any, message: Any, tree: Any, max_bytes: int) -> None:
        self.client, self.message, self.tree = client, message, tree
        self.max_bytes = max_bytes
        self._sizes: dict[str, int] = {}
        self._chunks: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def PullMessages(self, request: Any) -> Any:  # noqa: N802 (a name of Flower's)
        """What has come, without asking."""
        return PullAppMessagesResponse(
            messages_list=[self.message], message_object_trees=[self.tree]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """A part of the contents."""
        part = self.client.PullObject(request)
        content = part.object_content
        self._sizes[request.object_id] = len(content)
        self._check(sum(list(self._sizes.values())))
        if content.startswith(b"Array "):
            chunks = get_object_children_ids_from_object_content(content)
            wanted = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            self._chunks += [chunks[index] for index in wanted]
        return part

    def ConfirmMessageReceived(self, request: Any) -> Any:  # noqa: N802
        """All parts are here, and are put together next."""
        self._check(sum(self._sizes.get(chunk, 0) for chunk in self._chunks))
        return self.client.ConfirmMessageReceived(request)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise TooLargeError(f"the reply has more than {self.max_bytes} bytes")


class BackgroundGrid(GridAround):
    """Pulls the contents of each reply in a thread of its own, and at most so many bytes of it.

    Flower's grid waits for the contents of a reply that is announced: minutes, if its SuperNode
    is slow, was killed in mid-upload or sends what the SuperLink does not take, and meanwhile no
    other reply is heard. Here such a reply is an error of its node once Flower gives it up.

    Parameters
    ----------
    grid : HttpGrid
        Of a deployment.
    max_bytes : int, default 2**28
        Of a reply, also of its arrays when they are put together; more is an error of its node.
    """

    grid: HttpGrid
    # A busy SuperLink's database answers with an error for a while; see `_patiently`.
    PATIENCE, PAUSE = 120.0, 1.0
    # A reply of a usual size is there in a few milliseconds: the look that finds it has it.
    MOMENT = 0.2
    POLL_INTERVAL = 0.5
    KEPT_FOR = 60.0  # s, for somebody to ask for a reply

    def __init__(self, grid: HttpGrid, max_bytes: int = 2**28) -> None:
        require_number("max_bytes", max_bytes, at_least=1)
        super().__init__(grid)
        self.max_bytes = max_bytes
        self._coming: set[str] = set()
        self._here: dict[str, tuple[float, Message]] = {}
        self._changed = threading.Condition()

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes that are online."""
        return self._patiently(lambda: list(self.grid.get_node_ids()))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; returns their ids."""
        kept = list(messages)
        return self._patiently(lambda: list(self.grid.push_messages(kept)))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies to these messages that are here whole.

        Parameters
        ----------
        message_ids : iterable of str
            Of the messages that were sent.
        """
        wanted = list(message_ids)
        new = self._look([each for each in wanted if each not in self._coming])
        with self._changed:
            self._changed.wait_for(lambda: new <= self._here.keys(), self.MOMENT if new else 0)
            found = [each for each in wanted if each in self._here]
            replies = [self._here.pop(each)[1] for each in found]
            self._coming.difference_update(found)
            oldest = time.monotonic() - self.KEPT_FOR
            for each in [key for key, (at, _) in self._here.items() if at < oldest]:
                del self._here[each]
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and wait for their replies.

        Parameters
        ----------
        messages : iterable of Message
        timeout : float, optional
            Seconds; what has not come by then is left out.
        """
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            found = self.pull_messages(waiting)
            replies += found
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            if not found:
                time.sleep(self.POLL_INTERVAL)
        return replies

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call again while the SuperLink has an error of its own.

        Flower's client does so if it cannot be reached, but not if it says that its database is
        locked, as SQLite is while large replies are written.
        """
        end = time.monotonic() + self.PATIENCE
        while True:
            try:
                return call()
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error or time.monotonic() > end:
                    raise
                log(WARNING, "the SuperLink has an error, asking again: %s", error)
                time.sleep(self.PAUSE)

    def _look(self, message_ids: list[str]) -> set[str]:
        """Begin to fetch what has been announced; returns to which messages that replies."""
        if not message_ids:
            return set()
        client = self.grid._runtime_client
        request = PullAppMessagesRequest(message_ids=message_ids)
        told = self._patiently(lambda: client.PullMessages(request))
        announced = list(zip(told.messages_list, told.message_object_trees, strict=True))
        for message, tree in announced:
            self._coming.add(message.metadata.reply_to_message_id)
            threading.Thread(target=self._fetch, args=(message, tree), daemon=True).start()
        return {message.metadata.reply_to_message_id for message, _ in announced}

    def _fetch(self, message: Any, tree: Any) -> None:
        # Flower's own grid does the work, for this one reply.
        grid, client = copy.copy(self.grid), self.grid._runtime_client
        grid._client = OneReply(client, message, tree, self.max_bytes)  # type: ignore[assignment]
        about = message.metadata
        try:
            (reply,) = grid.pull_messages([about.reply_to_message_id])
        except Exception as error:  # whatever a damaged reply makes Flower raise
            reply = unreadable(about, error)
            # To delete gibibytes locks the SuperLink's database for longer than anybody waits;
            # what is too large stays there until the run ends.
            if not isinstance(error, TooLargeError):
                self._throw_away(about)
        with self._changed:
            self._here[about.reply_to_message_id] = (time.monotonic(), reply)
            self._changed.notify_all()

    def _throw_away(self, about: Any) -> None:
        """Let the SuperLink forget a reply that was not read to its end."""
        request = ConfirmMessageReceivedRequest(
            node=self.grid.node, run_id=about.run_id, message_object_id=about.message_id
        )
        try:
            self.grid._runtime_client.ConfirmMessageReceived(request)
        except Exception:  # it will forget it with the run
            return


def unreadable(about: Any, error: Exception) -> Message:
    """The error that stands for a reply that cannot be read.

    Parameters
    ----------
    about : protobuf message
        Metadata of the reply.
    error : Exception
    """
    metadata = Metadata(
        run_id=about.run_id,
        message_id="",
        src_node_id=about.src_node_id,
        dst_node_id=about.dst_node_id,
        reply_to_message_id=about.reply_to_message_id,
        group_id=about.group_id,
        created_at=about.created_at,
        ttl=about.ttl,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    reason = f"the reply cannot be read: {error!s:.200}"
    return make_message(metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason))
