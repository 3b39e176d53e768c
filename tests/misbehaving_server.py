"""A server on loopback whose next answers can be told to go wrong."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` by name; `faults` says what goes wrong with the next answers, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.headers: dict[str, str] = {}
        self.slow, self.go_on = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        name, wanted = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((name, wanted))
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            return handler.send_error(int(fault))
        if fault == "redirect":
            handler.send_response(302)
            handler.send_header("Location", f"{self.url}/{name}")
            handler.send_header("X-Linked-ETag", self.headers["X-Linked-ETag"])
            handler.end_headers()
            return None
        if fault == "slow":
            self.slow.set()
            self.go_on.wait(10)
        if name not in self.files:
            return handler.send_error(404)
        data = self.files[name]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        condition = handler.headers.get("If-Range")
        start = 0
        if wanted and fault != "ignore range" and condition in (None, etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.end_headers()
                return None
            handler.send_response(206)
            shown = start - 9 if fault == "wrong piece" else start
            handler.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("ETag", etag)
        handler.end_headers()
        body = data[start - 9 : -9] if fault == "wrong piece" else data[start:]
        handler.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        return None
