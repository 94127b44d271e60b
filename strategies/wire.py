"""Messages and the state of a node as bytes, in Flower's own format."""

from flwr.app import Message, RecordDict
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict


def message_to_bytes(message: Message) -> bytes:
    """A message with its metadata."""
    return message_to_proto(message).SerializeToString()


def message_from_bytes(data: bytes) -> Message:
    """What :func:`message_to_bytes` has written."""
    return message_from_proto(ProtoMessage.FromString(data))


def records_to_bytes(records: RecordDict) -> bytes:
    """Records, as a message or a node's state holds them."""
    return recorddict_to_proto(records).SerializeToString()


def records_from_bytes(data: bytes) -> RecordDict:
    """What :func:`records_to_bytes` has written."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def size_of_arrays(message: Message) -> int:
    """Bytes of the arrays of a message as they travel, with their names."""
    return sum(record.count_bytes() for record in message.content.array_records.values())
