"""The local server of the demo, on Python's standard library: one page, and three addresses that take a picture."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import os
import socket
import socketserver
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hfprobe.system.errors import InputError, find_shortage, shorten
from hfprobe.tasks.demo.disputed import Disputed
from hfprobe.tasks.demo.feedback import Feedback
from hfprobe.tasks.demo.measure import Models, UnreadableError
from hfprobe.tasks.demo.page import Page, render_page

logger = logging.getLogger(__name__)

# The largest picture that is taken, in bytes of its file.
MAX_BYTES = 32 * 2**20
# A connection that is silent for so long is closed.
SECONDS = 30
# Errors of a host or port that cannot be listened on, besides those of names.
UNUSABLE = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A request that is answered with a status and one line."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """A server of the page; each request has a thread, and the models answer one at a time.

    Attributes:
        url: the address of the page.
        is_loopback: whether only this machine reaches it.
    """

    def __init__(self, models: Models, page: Page, feedback: Feedback, *, host: str, port: int):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.models, self.page, self.feedback, self.host = models, page, feedback, host
        super().__init__((host, port), Handler)
        self.is_loopback = ipaddress.ip_address(str(self.server_address[0])).is_loopback
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Without the look-up of the host's full name in HTTPServer, which waits for a name server."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that ends a connection early is no event."""


def serve(models: Models, *, host: str, port: int, feedback: Path, disputed: Sequence[Disputed] = ()) -> Server:
    """A server that listens; `serve_forever` answers.

    Args:
        host: a name or an address of this machine.
        port: 0 for a free one.
        feedback: folder for pictures with a corrected label.
        disputed: pictures that the page offers.

    Raises:
        InputError: the host is not of this machine; the port is in use, or reserved.
    """
    page = render_page(
        models=models.names, labels=models.labels, max_bytes=MAX_BYTES, feedback=str(feedback), disputed=disputed
    )
    try:
        return Server(models, page, Feedback(feedback), host=host, port=port)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno not in UNUSABLE and not isinstance(error, socket.gaierror):
            raise
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            found, remedy = f"--port {port}", "Pass another port, or 0 for a free one."
        else:
            found, remedy = f"--host '{shorten(host)}'", "Pass an address of this machine, such as 127.0.0.1."
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{found} cannot be listened on: {reason}. {remedy}") from error


class Handler(BaseHTTPRequestHandler):
    """One request. No part of a request is used as a path of a file."""

    server: Server
    server_version, sys_version, timeout = "hfprobe", "", SECONDS

    def do_GET(self) -> None:
        self._reply(self._get)

    def do_HEAD(self) -> None:
        self._reply(self._get)

    def do_POST(self) -> None:
        self._reply(self._post)

    def _get(self) -> tuple[bytes, str]:
        if urlsplit(self.path).path != "/":
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is only one page: /.")
        return self.server.page.content, "text/html; charset=utf-8"

    def _post(self) -> tuple[bytes, str]:
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise RefusedError(HTTPStatus.FORBIDDEN, "Only the page of this server may send pictures to it.")
        address = urlsplit(self.path)
        actions: dict[str, Callable[[bytes, str], Any]] = {
            "/answer": lambda content, _: asdict(self.server.models.answer(content)),
            "/decisive": lambda content, _: [asdict(one) for one in self.server.models.find_decisive(content)],
            "/feedback": self._keep,
        }
        if address.path not in actions:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"Pictures are sent to {', '.join(actions)}.")
        content = self._read_picture()
        return json.dumps(actions[address.path](content, address.query)).encode(), "application/json"

    def _keep(self, content: bytes, query: str) -> dict[str, str]:
        label = parse_qs(query).get("label", [""])[-1]
        if label not in self.server.models.labels:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"'{shorten(label)}' is not a class of these models.")
        self.server.models.check(content)
        return {"file": self.server.feedback.keep(content, label=label)}

    def _read_picture(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "The length of the picture in bytes is missing.")
        if len(length) > 20 or int(length) > MAX_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The picture has more than {MAX_BYTES // 2**20} MB. Choose a smaller one.",
            )
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The picture was cut off. Send it again.")
        return content

    def _reply(self, action: Callable[[], tuple[bytes, str]]) -> None:
        """The answer of an action, or one line of JSON that says why there is none."""
        try:
            self._check_host()
            content, kind = action()
        except RefusedError as error:
            self._fail(error.status, str(error))
        except UnreadableError as error:
            self._fail(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # the terminal says which, the client learns nothing of the machine
            if os.environ.get("HFPROBE_DEBUG") == "1":
                traceback.print_exc()
            lacking = find_shortage(error)
            logger.error("A picture was not answered: %s", lacking or f"{type(error).__name__}: {error}")
            status = HTTPStatus.INTERNAL_SERVER_ERROR if lacking is None else HTTPStatus.INSUFFICIENT_STORAGE
            self._fail(status, "The server failed. The terminal that it runs in says why.")
        else:
            self._send(HTTPStatus.OK, content, kind)

    def _check_host(self) -> None:
        """Refuse a request that names another host: a page elsewhere whose name was pointed at this machine."""
        hosts = self.headers.get_all("Host") or [""]
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            name, port = "", None
        known = {"localhost", self.server.host.lower()}
        own_port = port == self.server.server_address[1] or (port is None and self.server.server_address[1] == 80)
        if len(hosts) != 1 or not own_port or not (name in known or _is_address(name, self.server.is_loopback)):
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, f"Open {self.server.url} instead.")

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True  # what was sent with the request may not have been read
        line = " ".join(message.split())
        self._send(status, json.dumps({"error": line}).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(content))}
            for name, value in (headers | HEADERS | {"Content-Security-Policy": self.server.page.policy}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except (ConnectionError, TimeoutError):  # the client has gone
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, such as another method, in the same form."""
        status = HTTPStatus(code)
        self._fail(status, f"{status.phrase}. Open {self.server.url} in a browser.")

    def log_message(self, format: str, *arguments: Any) -> None:
        """No line for each request."""


def _is_address(name: str, loopback: bool) -> bool:
    """Whether a host is an IP address, which no name server can point elsewhere; of this machine, with `loopback`."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback
