"""HTTP connections whose timeout is for a whole reply: urllib3's is for each piece that comes."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3


class _Timely(io.RawIOBase):
    """What comes from a socket until its timeout, counted from now, is over."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock, timeout = sock, sock.gettimeout()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:  # which as a timeout would mean not to wait at all
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Timely(sock))


class Connection(urllib3.connection.HTTPConnection):
    """One that is not encrypted."""

    response_class = _Reply


class TlsConnection(urllib3.connection.HTTPSConnection):
    """One that is."""

    response_class = _Reply


class TimelyPool(urllib3.HTTPConnectionPool):
    """Unencrypted ones."""

    ConnectionCls = Connection


class TimelyTlsPool(urllib3.HTTPSConnectionPool):
    """Encrypted ones."""

    ConnectionCls = TlsConnection
