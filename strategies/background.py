"""A deployment's grid that downloads replies in threads: a slow upload delays no other reply."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from logging import WARNING
from typing import Any, TypeVar

import httpx
from flwr.app import Array, Message
from flwr.common.logger import log

from strategies.checks import require_number
from strategies.clock import Clock
from strategies.flower_internals import (
    ConfirmMessageReceivedRequest,
    HttpGrid,
    ObjectPushError,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    get_object_body,
    get_object_children_ids_from_object_content,
    runtime_client,
    unavailable_reply,
    with_client,
)
from strategies.grids import GridAround

T = TypeVar("T")


class TooLargeError(Exception):
    """A reply has more bytes than the server accepts."""


class OneReply:
    """A client of the Runtime API that knows of one reply only, and limits its size.

    Equal chunks of an array are transferred once, so that a small transfer may become a large
    array: both sizes are limited.

    Parameters
    ----------
    client : RuntimeHttpClient
    message, tree : protobuf messages
        The reply without its contents, and the ids of these.
    max_bytes : int
        Limit of the transfer, and of the assembled arrays.
    """

    def __init__(self, client: Any, message: Any, tree: Any, max_bytes: int) -> None:
        self.client, self.message, self.tree = client, message, tree
        self.max_bytes = max_bytes
        self._sizes: dict[str, int] = {}
        self._chunks: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def PullMessages(self, request: Any) -> Any:  # noqa: N802 (a name of Flower's)
        """Return the announcement of the reply."""
        return PullAppMessagesResponse(
            messages_list=[self.message], message_object_trees=[self.tree]
        )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """Download a part of the contents."""
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
        """Confirm that all parts have been downloaded; they are assembled next."""
        self._check(sum(self._sizes.get(chunk, 0) for chunk in self._chunks))
        return self.client.ConfirmMessageReceived(request)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise TooLargeError(f"the reply has more than {self.max_bytes} bytes")


class BackgroundGrid(GridAround):
    """Download the contents of each reply in its own thread, up to a limit.

    Flower's grid blocks until the contents of an announced reply have arrived: for minutes, if its
    SuperNode is slow, was killed during the upload or sends what the SuperLink rejects. Here only
    that reply is delayed, and becomes an error of its node once Flower gives up.

    Parameters
    ----------
    grid : HttpGrid
        Grid of a deployment.
    max_bytes : int, default 2**28
        Limit of a reply, also of its assembled arrays; a larger one is an error of its node.
    """

    grid: HttpGrid
    clock: Clock = time
    longest_sleep = 0.5
    PATIENCE, PAUSE = 120.0, 1.0  # seconds to retry while the SuperLink has errors, and between
    MOMENT = 0.2  # seconds in which a reply of usual size arrives: the same poll returns it
    KEPT_FOR = 60.0  # seconds for which a downloaded reply waits to be pulled

    def __init__(self, grid: HttpGrid, max_bytes: int = 2**28) -> None:
        require_number("max_bytes", max_bytes, at_least=1)
        super().__init__(grid)
        self.max_bytes = max_bytes
        self._announced: set[str] = set()
        self._downloaded: dict[str, tuple[float, Message]] = {}
        self._changed = threading.Condition()

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are online."""
        return self._patiently(lambda: list(self.grid.get_node_ids()))

    def get_node_keys(self) -> dict[int, bytes]:
        """Return the public key of each node that is online, by its id."""
        nodes = self._patiently(lambda: list(self.grid.get_nodes()))
        return {int(node.node_id): bytes(node.public_key) for node in nodes}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and return their ids; empty for one that could not be sent.

        That happens to single parts of a message while the SuperLink's database is locked, and must
        not end the training: the caller makes another message later.
        """
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        try:
            pushed = self._patiently(lambda: list(self.grid.push_messages([message])))
        except ObjectPushError as error:
            log(WARNING, "a message could not be sent: %s", error)
            return ""
        return (pushed or [""])[0] or ""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that have been downloaded.

        Parameters
        ----------
        message_ids : iterable of str
        """
        wanted = list(message_ids)
        new = self._poll([each for each in wanted if each not in self._announced])
        with self._changed:
            patience = self.MOMENT if new else 0.0
            self._changed.wait_for(lambda: new <= self._downloaded.keys(), patience)
            found = [each for each in wanted if each in self._downloaded]
            replies = [self._downloaded.pop(each)[1] for each in found]
            self._announced.difference_update(found)
            oldest = time.monotonic() - self.KEPT_FOR
            for each in [key for key, (at, _) in self._downloaded.items() if at < oldest]:
                del self._downloaded[each]
        return replies

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call, and retry while the SuperLink has an internal error.

        Flower's client retries if it cannot connect, but not if the SuperLink answers that its
        database is locked, as SQLite is while large replies are written.
        """
        end = time.monotonic() + self.PATIENCE
        while True:
            try:
                return call()
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error or time.monotonic() > end:
                    raise
                log(WARNING, "the SuperLink has an error, retrying: %s", error)
                time.sleep(self.PAUSE)

    def _poll(self, message_ids: list[str]) -> set[str]:
        """Start the download of new replies; return the messages that they answer."""
        if not message_ids:
            return set()
        client = runtime_client(self.grid)
        request = PullAppMessagesRequest(message_ids=message_ids)
        response = self._patiently(lambda: client.PullMessages(request))
        replies = list(zip(response.messages_list, response.message_object_trees, strict=True))
        for message, tree in replies:
            self._announced.add(message.metadata.reply_to_message_id)
            threading.Thread(target=self._download, args=(message, tree), daemon=True).start()
        return {message.metadata.reply_to_message_id for message, _ in replies}

    def _download(self, message: Any, tree: Any) -> None:
        client, metadata = runtime_client(self.grid), message.metadata
        grid = with_client(self.grid, OneReply(client, message, tree, self.max_bytes))
        try:
            (reply,) = grid.pull_messages([metadata.reply_to_message_id])
        except Exception as error:  # whatever a damaged reply makes Flower raise
            reply = unavailable_reply(metadata, f"the reply cannot be read: {error!s:.200}")
            # Deleting gibibytes would lock the SuperLink's database for longer than any client
            # retries; a reply that is too large stays there until the run ends.
            if not isinstance(error, TooLargeError):
                self._discard(client, metadata)
        with self._changed:
            self._downloaded[metadata.reply_to_message_id] = (time.monotonic(), reply)
            self._changed.notify_all()

    def _discard(self, client: Any, metadata: Any) -> None:
        """Let the SuperLink delete a reply that was not read to its end."""
        request = ConfirmMessageReceivedRequest(
            node=self.grid.node, run_id=metadata.run_id, message_object_id=metadata.message_id
        )
        try:
            client.ConfirmMessageReceived(request)
        except Exception:  # it is deleted with the run
            return
