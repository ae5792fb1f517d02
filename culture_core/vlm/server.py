"""Any server that speaks OpenAI's chat-completions protocol: vLLM, Ollama, Gemini's and OpenAI's endpoints.

The official client does the talking, and the retries: of 429, 408, 409, 5xx, lost connections and time-outs,
with exponential back-off, or as long as `Retry-After` asks for. Neither address nor key is ever logged, put
into an error or kept with an answer.
"""

import json
import logging
import re
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from PIL import Image

from .base import Reply, VLMError, VLMRefusal
from .cache import AnswerCache, default_folder
from .images import data_url, image_hash, prepared
from .usage import Prices, Usage

logger = logging.getLogger(__name__)

SHORTEST_KEY = 8
"""Characters of a key that is taken for a secret."""

_SAME_MODEL = re.compile(r"-\d{4}-?\d{2}-?\d{2}|-\d{4}|-\d{3}|:latest")
"""What a server may add to the name that it was asked for: the date or number of the version."""
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class ServerSettings:
    """Where a model is served and how to treat it; made from the configuration of this machine only."""

    url: str = field(repr=False)
    """Base address, which ends in /v1 with most servers."""
    model: str
    """As the server calls it."""
    key: str = field(default="", repr=False)
    """Empty for servers that want none."""
    requests_per_minute: float | None = None
    timeout: float = 60.0
    """Seconds to wait for one answer."""
    retries: int = 5
    """After the first attempt."""
    longest_edge: int = 1024
    """Larger pictures are scaled down to this many pixels before they are sent."""
    prices: Prices | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as {"reasoning_effort": "none"}."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise VLMError("the address of the VLM server must begin with http:// or https://")
        if not self.model.strip():
            raise VLMError("the VLM server needs the name of a model")
        positive = ("requests_per_minute", "timeout", "longest_edge")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise VLMError(f"{name} of the VLM server is {value}: it must be more than 0")
        if type(self.retries) is not int or not isinstance(self.key, str):
            raise VLMError("retries of the VLM server must be a whole number, and its key a text")
        if self.retries < 0:
            raise VLMError(f"retries of the VLM server is {self.retries}: it must be 0 or more")


class ServerVLM:
    """A model behind a server. Several threads may ask at once."""

    def __init__(self, settings: ServerSettings, cache: Path | None = None) -> None:
        """
        Args:
            cache: folder of earlier answers; None: the usual one, see `cache.default_folder`.

        Raises:
            VLMError: where the client library is missing.
        """
        try:
            import openai
        except ImportError:
            raise VLMError("asking a VLM server needs the package openai: pip install openai") from None
        self.name = settings.model
        self.settings = settings
        self.usage = Usage()
        """Of the answers that were not cached."""
        self._cache = AnswerCache(cache or default_folder())
        self._errors = openai
        self._pace = _Pace(settings.requests_per_minute)
        self._lock = threading.Lock()
        self._given_up: frozenset[str] = frozenset()
        self._warned: set[str] = set()
        self._client = self._connect()

    def _connect(self) -> Any:
        # At its level INFO the HTTP library writes the address of every request.
        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        client = self._errors.OpenAI(
            base_url=self.settings.url,
            # Never empty: the client would take OPENAI_API_KEY, and send it to whatever server this is.
            api_key=self.settings.key or "none",
            timeout=self.settings.timeout,
            max_retries=self.settings.retries,
            # A hook sees every attempt, retries too.
            http_client=self._errors.DefaultHttpxClient(
                timeout=self.settings.timeout, event_hooks={"request": [lambda _: self._pace.wait()]}
            ),
        )
        client.organization = client.project = None  # these as well come from OpenAI's variables
        return client

    def ask(
        self,
        question: str,
        image: Image.Image | None = None,
        *,
        choices: Sequence[str] | None = None,
        max_tokens: int = 256,
    ) -> Reply:
        """See `base.VLM.ask`. Servers that know structured output are held to the choices.

        Raises:
            VLMRefusal: where the model declines.
            VLMError: where there is no answer after all retries, or none that can be read.
        """
        record, cached = self._record(question, image, choices, max_tokens)
        cost = 0.0 if cached else _usage_of(record).cost(self.settings.prices)
        return Reply(record["text"], record["model"], cached, cost)

    def estimate(
        self,
        count: int,
        question: str,
        image: Image.Image | None = None,
        *,
        choices: Sequence[str] | None = None,
        max_tokens: int = 256,
    ) -> Usage:
        """What so many questions like this one will use.

        This one is asked, and its answer is kept: models count the tokens of a picture each in their own way,
        and some think before they answer, so that only the server can tell.
        """
        return _usage_of(self._record(question, image, choices, max_tokens)[0]).times(count)

    def _record(
        self, question: str, image: Image.Image | None, choices: Sequence[str] | None, max_tokens: int
    ) -> tuple[dict[str, Any], bool]:
        """The answer as the cache keeps it, and whether it comes from there."""
        picture = None if image is None else prepared(image, self.settings.longest_edge)
        asked = {
            "image": None if picture is None else image_hash(picture), "question": question,
            "model": self.settings.model, "choices": choices and list(choices), "max_tokens": max_tokens,
            "options": dict(self.settings.options),
        }  # fmt: skip
        if (record := self._cache.get(asked)) is not None:
            return record, True
        completion = self._complete(question, picture, choices, max_tokens)
        # A server may repeat the key in what it says, and what it says is kept.
        text = self._without_key(self._text(completion, choices, max_tokens))
        model = completion.model if isinstance(completion.model, str) and completion.model else self.name
        model = self._without_key(model)
        self._check_model(model)
        record = {"text": text, "model": model, **_counted(completion)}
        with self._lock:
            self.usage += _usage_of(record)
        self._cache.put(asked, record)
        return record, False

    def _complete(
        self, question: str, picture: Image.Image | None, choices: Sequence[str] | None, max_tokens: int
    ) -> Any:
        """The server's answer; what it says it does not understand is left out of the request."""
        given_up = self._given_up
        while True:
            request = self._request(question, picture, choices, max_tokens, given_up)
            try:
                completion = self._client.chat.completions.create(
                    **request, extra_body=dict(self.settings.options)
                )
            except (self._errors.BadRequestError, self._errors.UnprocessableEntityError) as error:
                blamed = _blamed(str(error), request)
                if blamed is None:
                    raise self._explained(error) from None
                given_up |= {blamed}
            except (self._errors.OpenAIError, ValueError, RecursionError) as error:
                # Not `from error`: its request has the key.
                raise self._explained(error) from None
            else:
                with self._lock:
                    self._given_up |= given_up
                return completion

    def _request(
        self,
        question: str,
        picture: Image.Image | None,
        choices: Sequence[str] | None,
        max_tokens: int,
        given_up: frozenset[str],
    ) -> dict[str, Any]:
        if choices and "response_format" in given_up:
            question += f"\n\nAnswer with one of these and nothing else: {' | '.join(choices)}"
        content: Any = question
        if picture is not None:
            content = [
                {"type": "text", "text": question},
                {"type": "image_url", "image_url": {"url": data_url(picture)}},
            ]
        request: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
        }
        request["max_completion_tokens" if "max_tokens" in given_up else "max_tokens"] = max_tokens
        if "temperature" not in given_up:
            request["temperature"] = 0
        if choices and "response_format" not in given_up:
            request["response_format"] = _one_of(choices)
        # What the configuration sets goes before what is usual.
        return {name: value for name, value in request.items() if name not in self.settings.options}

    def _text(self, completion: Any, choices: Sequence[str] | None, max_tokens: int) -> str:
        try:
            answer = completion.choices[0]
            refusal, text = getattr(answer.message, "refusal", None), answer.message.content
        except (AttributeError, TypeError, IndexError):
            raise VLMError(f"{self.name}: the server's answer is malformed, it holds no message") from None
        if refusal or answer.finish_reason == "content_filter":
            raise VLMRefusal(f"{self.name} declined to answer: {self._clean(refusal or 'content filter')}")
        text = _THOUGHTS.sub("", text, count=1).strip() if isinstance(text, str) else ""
        if not text and answer.finish_reason == "length":
            raise VLMError(
                f"{self.name} used up its {max_tokens} tokens before it answered: if it thinks first, switch "
                'that off in the configuration ("options": {"reasoning_effort": "none"}), or allow more '
                '("options": {"max_tokens": 2000})'
            )
        if not text:
            raise VLMError(f"{self.name}: the server's answer is empty")
        return _chosen(text) if choices else text

    def _check_model(self, answering: str) -> None:
        """Warn once where another model answers than was asked."""
        extra = answering.removeprefix("models/").removeprefix(self.name.removeprefix("models/"))
        if extra and not _SAME_MODEL.fullmatch(extra):
            with self._lock:
                news = answering not in self._warned
                self._warned.add(answering)
            if news:
                logger.warning(
                    "The server was asked for the model %s, and %s answered.", self.name, answering
                )

    def _explained(self, error: Exception) -> VLMError:
        """The client's error in the user's terms."""
        e, tries = self._errors, f"in up to {self.settings.retries + 1} attempts"
        code = str(getattr(error, "code", "") or "")
        if isinstance(error, e.BadRequestError) and "content" in code:  # content_filter, content_policy_…
            return VLMRefusal(f"{self.name}: the server declined this question ({code})")
        if isinstance(error, e.APITimeoutError):
            return VLMError(f"{self.name}: no answer within {self.settings.timeout:g} s, {tries}")
        if isinstance(error, e.APIConnectionError):
            return VLMError(f"{self.name}: the VLM server cannot be reached, {tries}: see its address")
        if isinstance(error, e.AuthenticationError | e.PermissionDeniedError):
            return VLMError(
                f"{self.name}: the VLM server does not accept the key (status {error.status_code})"
            )
        if isinstance(error, e.NotFoundError):
            return VLMError(
                f"{self.name}: the VLM server does not know this model, or its address is wrong (status 404; "
                "the address usually ends in /v1)"
            )
        if isinstance(error, e.RateLimitError):
            return VLMError(
                f"{self.name}: the VLM server takes no more requests (status 429, {tries}): wait, check the "
                "quota, or set requests_per_minute"
            )
        if isinstance(error, e.APIStatusError):
            said = self._clean(str(error))
            return VLMError(f"{self.name}: the VLM server failed with status {error.status_code}: {said}")
        return VLMError(f"{self.name}: the VLM server's answer is malformed")

    def _clean(self, text: str) -> str:
        """A server's words, short, without the key and the address that it may repeat."""
        return self._without_key(text).replace(self.settings.url, "***")[:300]

    def _without_key(self, text: str) -> str:
        for form in _forms(self.settings.key):
            text = text.replace(form, "***")
        return text


def _forms(key: str) -> set[str]:
    """How a key is usually written: as it is, quoted in an address, in base64. A short one is no secret but
    what local servers are given for want of one ("none", "ollama"), and would be found in harmless words."""
    if len(key) < SHORTEST_KEY:
        return set()
    found = {key, quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1]}
    raw = key.encode()
    for before in range(
        3
    ):  # base64 depends on where in three bytes the key begins, its ends on what is around
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(bytes(before) + raw).decode()
            found.add(text[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6])
    return found


class _Pace:
    """Lets requests pass no faster than so many a minute, evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + self.gap
        time.sleep(start - now)


def _one_of(choices: Sequence[str]) -> dict[str, Any]:
    """Structured output: an object whose only field is one of the choices."""
    schema = {
        "type": "object", "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"], "additionalProperties": False,
    }  # fmt: skip
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _chosen(text: str) -> str:
    """The choice inside structured output; the text itself from a server that ignored the schema."""
    try:
        answer = json.loads(text)["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return text
    return answer.strip() if isinstance(answer, str) else text


def _blamed(message: str, request: Mapping[str, Any]) -> str | None:
    """Which part of a rejected request to do without: the one that the server names, or the schema, for which
    servers have no common words."""
    named = [name for name in ("max_tokens", "temperature") if name in request and name in message]
    return next(iter(named), "response_format" if "response_format" in request else None)


def _counted(completion: Any) -> dict[str, int | None]:
    usage = getattr(completion, "usage", None)
    names = ("prompt_tokens", "completion_tokens")
    return {name: getattr(usage, name, None) for name in names}


def _usage_of(record: Mapping[str, Any]) -> Usage:
    prompt, completion = record.get("prompt_tokens"), record.get("completion_tokens")
    if not (isinstance(prompt, int) and isinstance(completion, int)):
        return Usage(answers=1, uncounted=1)
    return Usage(1, prompt, completion)
