"""The connection to a server: who it is, who we are, how to try again."""

from __future__ import annotations

import dataclasses
import importlib.resources
import ipaddress
import os
import re
from typing import Any, Optional, Union

import grpc

from lancet import errors

Path = Union[str, "os.PathLike[str]"]

# A PNG of the largest picture that a server could be set to make.
_MAX_MESSAGE_BYTES = 256 << 20
_MAX_TOKEN_BYTES = 4096
_MAX_PEM_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Tls:
    """PEM files. Without `ca` gRPC's own roots count; `cert` and `key` are shown to a server that asks for them."""

    ca: Optional[Path] = None
    cert: Optional[Path] = None
    key: Optional[Path] = None
    #: The name that the server's certificate must have; None: the one in its address.
    server_name: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Connection:
    """What clients need to know, checked."""

    server: str
    credentials: Optional[grpc.ChannelCredentials]  # None: not encrypted
    options: list[tuple[str, Any]]
    token: Optional[str] = dataclasses.field(repr=False)

    def metadata(self, traceparent: Optional[str]) -> list[tuple[str, str]]:
        """Of one call."""
        metadata = []
        # Not as call credentials, which gRPC sends over encrypted connections alone: on loopback there may be none.
        if self.token is not None:
            metadata.append(("authorization", f"Bearer {self.token}"))
        if traceparent is not None:
            metadata.append(("traceparent", traceparent))
        return metadata


def is_loopback(server: str) -> bool:
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    address = re.sub(r"^(ipv4:|ipv6:|dns:///|dns:)", "", server)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") else host).is_loopback
    except ValueError:
        return False


def _read(path: Path, field: str, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise errors.InvalidArgument(f"{field}: cannot read {os.fspath(path)!r}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise errors.InvalidArgument(f"{field}: {os.fspath(path)!r} has more bytes; the limit is {max_bytes}")
    return data


def _check_token(token: str, field: str) -> str:
    if not token or len(token) > _MAX_TOKEN_BYTES or not all("!" <= c <= "~" for c in token):
        raise errors.InvalidArgument(f"{field}: not one word of 1 to {_MAX_TOKEN_BYTES} printable ASCII characters")
    return token


def _make_credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.cert is None) != (tls.key is None):
        raise errors.InvalidArgument("tls: a certificate and its key belong together; set both or neither")
    pems = [None if path is None else _read(path, f"tls.{field}", _MAX_PEM_BYTES)
            for field, path in (("ca", tls.ca), ("key", tls.key), ("cert", tls.cert))]
    for field, pem in zip(("ca", "key", "cert"), pems):
        if pem is not None and b"-----BEGIN " not in pem:
            raise errors.InvalidArgument(f"tls.{field}: not a PEM file")
    return grpc.ssl_channel_credentials(*pems)


def service_config() -> str:
    """The published one of lancet.v1: UNAVAILABLE is tried again while nothing of the answer has come."""
    return importlib.resources.files("lancet.v1").joinpath("service_config.json").read_text("utf-8")


def make_connection(server: str, tls: Union[bool, Tls], token: Optional[str],
                    token_file: Optional[Path]) -> Connection:
    """InvalidArgument for an empty address, files that can't be used, and a token that would go over a network
    unencrypted."""
    if not server:
        raise errors.InvalidArgument("server: empty; expected host:port")
    if token is not None and token_file is not None:
        raise errors.InvalidArgument("token_file: set, but so is token; set one or the other")
    if token_file is not None:
        text = _read(token_file, "token_file", _MAX_TOKEN_BYTES).decode("latin-1").strip()
        token = _check_token(text, "token_file")
    elif token is not None:
        _check_token(token, "token")
    if tls is True:
        tls = Tls()
    if token is not None and not tls and not is_loopback(server):
        raise errors.InvalidArgument(f"token: it would go to {server} for everybody on the way to read; use TLS")
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.service_config", service_config()),
        # Within the time that the retries take, a server that has just come up is found.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    credentials = None
    if isinstance(tls, Tls):
        credentials = _make_credentials(tls)
        if tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
    return Connection(server=server, credentials=credentials, options=options, token=token)
