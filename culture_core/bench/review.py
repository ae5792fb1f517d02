"""Human review: a local page on which a person accepts, mends or rejects one record after the other.

The page is served to this machine alone, under an address with a random key, and every decision is on disk
before the next record is shown.
"""

import json
import logging
import mimetypes
import secrets
import threading
from collections import Counter
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..cultures import CULTURES
from .captions import Captions, marked_captions, with_captions
from .hashes import exact_hash
from .records import ACCEPTED, REJECTED, Bench, BenchError, Record

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("review.html")
REASONS = (
    "does not show the culture",
    "stereotype or disrespectful",
    "caption does not fit the picture",
    "translation is wrong",
    "shows a private person",
    "poor picture",
    "licence or source in doubt",
)
"""Offered on the page; any other text will do."""
MAX_BODY = 64 << 10
_POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class ReviewServer:
    """Serves the review of a bench on 127.0.0.1.

    Use as a context; `url` is the page's address.
    """

    def __init__(self, folder: Path, reviewer: str, port: int = 0) -> None:
        """A server for a bench that is there.

        Args:
            reviewer: who decides; stands in every record that is decided upon.
            port: 0 for any that is free.

        Raises:
            BenchError: for a folder without a bench, or no reviewer.
            OSError: where the port is taken.
        """
        if not reviewer.strip():
            raise BenchError("say who reviews: the name stands beside every decision")
        Bench.open(folder)
        self.folder, self.reviewer = folder, reviewer.strip()
        self.key, self.lock = secrets.token_urlsafe(24), threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.review = self
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/{self.key}/"

    def serve(self) -> None:
        """Answer until `stop` is called from another thread, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        self._server.shutdown()

    def __enter__(self) -> "ReviewServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def queue(self) -> dict[str, Any]:
        """What the page begins with: the records that wait, and how many were decided upon."""
        records = Bench.open(self.folder).records.values()
        decided = Counter(record.decision or "waiting" for record in records)
        return {
            "waiting": [record.id for record in records if record.decision is None],
            "decided": dict(decided),
            "reasons": list(REASONS),
            "reviewer": self.reviewer,
        }

    def shown(self, id: str) -> dict[str, Any]:
        """One record as the page shows it; `version` tells whether it has changed since."""
        record = self._record(id)
        cultural, neutral = marked_captions(record) if record.captioned else ("", "")
        culture = CULTURES[record.culture]
        names = ("id", "category", "region", "licence", "source", "english", "decision", "reason", "reviewer")
        return {
            **{name: getattr(record, name) or "" for name in names},
            "culture": f"{culture.name} ({culture.code})", "language": record.language or record.culture,
            "cultural": cultural, "neutral": neutral, "version": _version(record),
        }  # fmt: skip

    def decide(self, id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out a decision; returns how many are decided upon.

        Raises:
            BenchError: for a request that makes no sense; nothing is changed then.
            Conflict: where the record is not what the page shows any more.
        """
        texts = ("decision", "reason", "cultural", "neutral", "version")
        if set(request) - set(texts) or not all(isinstance(value, str) for value in request.values()):
            raise BenchError("the request must hold texts alone")
        decision = request.get("decision")
        if decision not in (ACCEPTED, REJECTED, "waiting"):
            raise BenchError(f"the decision must be {ACCEPTED}, {REJECTED} or waiting")
        with self.lock:
            bench, record = Bench.open(self.folder), self._record(id)
            if request.get("version") != _version(record):
                raise Conflict("the record has changed meanwhile: look at it again")
            if decision == ACCEPTED:
                mended = _mended(record, request.get("cultural", ""), request.get("neutral", ""))
                bench.records[id] = mended
            bench.decide(
                id, None if decision == "waiting" else decision,
                "" if decision == "waiting" else self.reviewer, request.get("reason"),
            )  # fmt: skip
        return self.queue()["decided"]

    def picture(self, id: str) -> tuple[bytes, str]:
        """(bytes, content type) of a record's picture."""
        record = self._record(id)
        path = Bench.open(self.folder).image_path(record)
        kind = mimetypes.guess_type(path.name)[0] or ""
        if not kind.startswith("image/") or kind == "image/svg+xml":
            raise BenchError(f"{record.image} is no picture")
        return path.read_bytes(), kind

    def _record(self, id: str) -> Record:
        record = Bench.open(self.folder).records.get(id)
        if record is None:
            raise BenchError(f"there is no record {id!r}")
        return record


class Conflict(BenchError):
    """Somebody else was faster."""


def _mended(record: Record, cultural: str, neutral: str) -> Record:
    """A record with the captions that a reviewer has left on the page."""
    if record.captioned and (cultural, neutral) == marked_captions(record):
        return record
    given = Captions(cultural, neutral, record.language or record.culture)
    # What else is known stays known, but English captions tell gloss and noun themselves.
    if given.language == "en":
        record = replace(record, noun=None, english=None, english_neutral=None)
    return with_captions(record, given)


def _version(record: Record) -> str:
    return exact_hash(json.dumps(record.to_json(), sort_keys=True).encode())[:16]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    review: ReviewServer


class _Handler(BaseHTTPRequestHandler):
    """GET /key/, /key/queue, /key/record/ID, /key/picture/ID; POST /key/record/ID."""

    server: _Server
    server_version, sys_version = "review", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:  # noqa: N802  the base class's name
        parts = self._parts()
        if parts is None:
            return
        review = self.server.review
        try:
            if parts == [""]:
                self._page()
            elif parts == ["queue"]:
                self._json(review.queue())
            elif len(parts) == 2 and parts[0] == "record":
                self._json(review.shown(parts[1]))
            elif len(parts) == 2 and parts[0] == "picture":
                self._send(HTTPStatus.OK, *review.picture(parts[1]))
            else:
                self._json({"error": "there is nothing here"}, HTTPStatus.NOT_FOUND)
        except (BenchError, OSError) as error:
            self._json({"error": str(error)}, HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:  # noqa: N802
        parts = self._parts()
        if parts is None:
            return
        length = self.headers.get("Content-Length", "")
        plain = self.headers.get("Content-Type", "").partition(";")[0] == "application/json"
        if len(parts) != 2 or parts[0] != "record" or not plain or not length.isdecimal():
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no decision")
            return
        if int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "this is too long")
            return
        try:
            request = json.loads(self.rfile.read(int(length)))
            if not isinstance(request, dict):
                raise BenchError("a decision is a JSON object")
            self._json(self.server.review.decide(parts[1], request))
        except Conflict as error:
            self._json({"error": str(error)}, HTTPStatus.CONFLICT)
        except (ValueError, RecursionError) as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except OSError as error:
            self._json({"error": f"could not be saved: {error}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)

    def _parts(self) -> list[str] | None:
        """The path behind the key; None where the request was refused."""
        review = self.server.review
        # Another name for this machine would let a page elsewhere talk to it (DNS rebinding).
        host = self.headers.get("Host", "") in (f"127.0.0.1:{review.port}", f"localhost:{review.port}")
        key, _, rest = self.path.lstrip("/").partition("/")
        if not host or not secrets.compare_digest(key.encode(), review.key.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that the command has printed")
            return None
        return rest.split("/")

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", _POLICY.format(nonce))

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # what else was sent is not read
        self._json({"error": text}, status)

    def _json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
            ("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):  # fmt: skip
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
