"""As much of S3 as sealing and opening models takes, in memory, without signatures."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

BUCKET = "models"
# Called with each request: its method, its key, and the port that it comes from. Returns a status to refuse it with, 0 to break
# it off halfway, or nothing.
Meets = Callable[[str, str, int], int | None]


class Server:
    """A server on loopback until it is closed."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.changed = threading.Condition()
        self.meets: Meets = lambda _method, _key, _port: None
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"s3": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def put(self, key: str, content: bytes) -> None:
        with self.changed:
            self.objects[key] = content
            self.changed.notify_all()

    def below(self, prefix: str) -> dict[str, bytes]:
        """What lies there, by the paths from there."""
        with self.changed:
            return {key.removeprefix(prefix): self.objects[key] for key in self.objects if key.startswith(prefix)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: Server

    def log_message(self, *_args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def _answer(self, status: int, body: bytes = b"", sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None:
            self.wfile.flush()
            self.close_connection = True

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        key = unquote(url.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        met = self.s3.meets(self.command, key, self.client_address[1])
        if met:
            return self._answer(met, b"<Error><Code>AccessDenied</Code></Error>" if self.command != "HEAD" else b"")
        if "list-type" in query:
            return self._list(query["prefix"][0] if "prefix" in query else "")
        if self.command in ("GET", "HEAD"):
            return self._get(key, halfway=met == 0)
        if self.command == "POST" and "delete" in query:
            return self._delete(body)
        if self.command == "PUT":
            return self._put(key, body)
        return self._answer(501)

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def _list(self, prefix: str) -> None:
        found = "".join(
            f"<Contents><Key>{escape(prefix + key)}</Key><Size>{len(content)}</Size><ETag>{escape(_etag(content))}</ETag>"
            "<LastModified>2026-11-24T00:00:00.000Z</LastModified></Contents>"
            for key, content in sorted(self.s3.below(prefix).items())
        )
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode())

    def _get(self, key: str, halfway: bool) -> None:
        content = self.s3.objects.get(key)
        if content is None:
            return self._answer(404)
        headers = {"ETag": _etag(content), "Last_Modified": formatdate(1_795_478_400, usegmt=True)}
        if self.headers.get("If-Match", _etag(content)) != _etag(content):
            return self._answer(412)
        if self.command == "HEAD":
            return self._answer(200, Content_Length=str(len(content)), **headers)
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if given is None:
            return self._answer(200, content, **headers)
        start, end = int(given[1]), min(int(given[2]) + 1, len(content))
        headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return self._answer(206, content[start:end], (end - start) // 2 if halfway else None, **headers)

    def _put(self, key: str, body: bytes) -> None:
        copied = self.headers.get("x-amz-copy-source")
        with self.s3.changed:
            if self.headers.get("If-None-Match") == "*" and key in self.s3.objects:
                return self._answer(412)
            if copied:
                body = self.s3.objects[unquote(copied).removeprefix("/").removeprefix(f"{BUCKET}/")]
            self.s3.put(key, body)
        if copied:
            done = f"<CopyObjectResult><ETag>{escape(_etag(body))}</ETag></CopyObjectResult>"
            return self._answer(200, done.encode())
        return self._answer(200, ETag=_etag(body))

    def _delete(self, body: bytes) -> None:
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        with self.s3.changed:
            for key in keys:
                self.s3.objects.pop(unescape(key), None)
        gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
