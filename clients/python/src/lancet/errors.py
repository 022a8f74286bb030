"""What can go wrong, as exceptions. Each carries gRPC's code and the server's message."""

from __future__ import annotations

import re
from typing import Optional

import grpc

__all__ = [
    "Error",
    "InvalidArgument",
    "FailedPrecondition",
    "ResourceExhausted",
    "Unavailable",
    "DeadlineExceeded",
    "Cancelled",
    "Unauthenticated",
    "PermissionDenied",
    "Unimplemented",
    "Internal",
    "DataLoss",
]


class Error(Exception):
    """A call that ended without a result."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, code: Optional[grpc.StatusCode] = None,
                 retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        #: Seconds after which the server thinks that the request could be taken.
        self.retry_after = retry_after
        #: As in the server's logs; None for a request that was not taken up.
        self.request_id: Optional[str] = None

    def __str__(self) -> str:
        text = f"{self.code.name}: {self.message}"
        if self.request_id is not None and self.request_id not in self.message:
            text += f" (request {self.request_id})"
        if self.retry_after is not None:
            text += f" (try again in {self.retry_after:g} s)"
        return text


# "FIELD: what is wrong", where several fields are joined by commas.
_FIELD = re.compile(r"([a-z][a-z0-9_.]*(?:, [a-z][a-z0-9_.]*)*): (.+)", re.DOTALL)
# How the server writes a value and its limit.
_LIMITS = [re.compile(pattern, re.DOTALL) for pattern in (
    r"(?P<value>.+?) (?:is|are) not from (?P<limit>[^;]+)(?:;.*)?",
    r"(?P<value>.+?) (?:is|are) more than the limit of (?P<limit>.+)",
    r"(?P<value>.+?)[,;] the limit is (?P<limit>.+)",
    r"(?P<value>.+?) is not (?P<limit>a multiple of .+)",
    r"(?P<value>.+?) is not a known value \((?P<limit>.+)\)",
    r"(?P<value>.+?) (?:is|are) given; expected (?P<limit>[^:]+)(?::.*)?",
)]


class InvalidArgument(Error, ValueError):
    """A field of the request has a value that is refused, by the server or before it is sent."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, *, retry_after: Optional[float] = None) -> None:
        super().__init__(message, retry_after=retry_after)
        #: As in lancet.proto, such as "preview.max_side"; None if the message names none.
        self.field: Optional[str] = None
        #: What it was, and what it may be, in the server's words; None if the message does not say.
        self.value: Optional[str] = None
        self.limit: Optional[str] = None
        named = _FIELD.fullmatch(message)
        if named is None:
            return
        self.field = named[1]
        for pattern in _LIMITS:
            found = pattern.fullmatch(named[2])
            if found is not None:
                self.value = found["value"]
                self.limit = found["limit"]
                return


class FailedPrecondition(Error):
    """A request that no worker of this server can ever take."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(Error):
    """The queue is full, or the token has used what it may; `retry_after` tells when to come back."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(Error):
    """The server is not there, has no workers, or stops."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(Error, TimeoutError):
    """The time given for the call is over."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(Error):
    """The call was cancelled, or its iterator was left."""

    code = grpc.StatusCode.CANCELLED


class Unauthenticated(Error):
    """The server asks for a token and does not know this one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(Error):
    """The token is known but may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(Error):
    """The server is too old for this call, or is none of Lancet."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(Error):
    """The server failed; `request_id`, or the message, leads to its logs."""

    code = grpc.StatusCode.INTERNAL


class DataLoss(Error):
    """The stream ended without a result, or the result is damaged."""

    code = grpc.StatusCode.DATA_LOSS
