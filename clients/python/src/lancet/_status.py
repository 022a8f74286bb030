"""From gRPC's errors to ours."""

from __future__ import annotations

from typing import Any, Mapping, Optional

import grpc
from google.protobuf.message import DecodeError

from lancet import _details_pb2, errors

_DETAILS_KEY = "grpc-status-details-bin"
_RETRY_INFO = "google.rpc.RetryInfo"

_KINDS: tuple[type[errors.Error], ...] = (
    errors.InvalidArgument, errors.FailedPrecondition, errors.ResourceExhausted, errors.Unavailable,
    errors.DeadlineExceeded, errors.Cancelled, errors.Unauthenticated, errors.PermissionDenied, errors.Unimplemented,
    errors.Internal, errors.DataLoss)
_BY_CODE: Mapping[grpc.StatusCode, type[errors.Error]] = {kind.code: kind for kind in _KINDS}


def _retry_after(metadata: Any) -> Optional[float]:
    """Seconds, from the trailing metadata of a call; None without a hint that can be read."""
    for key, value in metadata or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for detail in _details_pb2.Status.FromString(value).details:
                if detail.type_url.rpartition("/")[2] == _RETRY_INFO:
                    delay = _details_pb2.RetryInfo.FromString(detail.value).retry_delay
                    return float(delay.seconds + delay.nanos / 1e9)
        except DecodeError:
            return None
    return None


def from_rpc_error(error: Any) -> errors.Error:
    """Of a grpc.RpcError, which has its code and the rest only if it comes from a call, as it does here."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or ""
    retry_after = _retry_after(error.trailing_metadata())
    kind = _BY_CODE.get(code)
    if kind is None:
        return errors.Error(message, code=code, retry_after=retry_after)
    return kind(message, retry_after=retry_after)
