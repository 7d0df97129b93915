"""HTTP for the channels: one POST, bounded in time and size, that never follows a redirect."""

from __future__ import annotations

import http.client
import json
import logging
import math
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from fleetwatch.dispatcher.channels import ATTEMPT, DeliveryError, Message
from fleetwatch.dispatcher.channels.deadline import deadline

Network = IPv4Network | IPv6Network

_MAX_ANSWER = 64 * 1024  # bytes of an answer that are read
_MAX_DETAIL = 300  # characters of an answer that are quoted
_MIN_SECRET = 6  # characters; a shorter piece of a secret URL, such as "v1", is none
_TRANSIENT_4XX = (408, 425, 429)
_NAT64 = IPv6Network("64:ff9b::/96")

logging.getLogger("urllib3").setLevel(logging.INFO)  # at DEBUG it would log URLs, which may be secret


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """No more than its first 64 KiB."""

    @property
    def ok(self) -> bool:
        """Whether the request was accepted (2xx)."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's classes

    def json(self) -> object:
        """Return the document in the body, or ``None`` when there is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Client:
    """Posts to one service. Safe to use from several threads; each request has its own connection."""

    def __init__(
        self,
        service: str,
        timeout: float,
        *,
        secrets: Iterable[str] = (),
        allowed_networks: Sequence[Network] | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        service: what errors call the other side, as ``Slack``.
        timeout: seconds for each network step; a request takes at most ``ATTEMPT`` times as long in all.
        secrets: texts that no error may hold, though the service might quote them.
        allowed_networks: what may be reached although it is loopback, link-local or otherwise special;
            ``None`` allows everything.
        """
        self._service = service
        self._timeout = timeout
        self._secrets = sorted((text for text in secrets if text), key=len, reverse=True)
        self._allowed_networks = allowed_networks

    def post(self, url: str, body: bytes, headers: Mapping[str, str], within: float | None = None) -> Answer:
        """Post and return the answer, whatever its status; raise DeliveryError when there is none.

        within: seconds for all of it, if less than ``ATTEMPT`` time-outs.
        """
        ends = time.monotonic() + min(within or math.inf, ATTEMPT * self._timeout)
        target = self._parse(url)
        try:
            connection = self._connect(target, ends)
            try:
                with deadline(max(ends - time.monotonic(), 0.0), connection) as expired:
                    # The address is in the connection, so that the name stands in this header only.
                    connection.request(
                        "POST",
                        target.request_uri,
                        body,
                        {**headers, "Host": target.netloc or "", "Connection": "close"},
                        preload_content=False,
                        decode_content=False,
                    )
                    response = connection.getresponse()
                    if expired.is_set():  # in the middle of the headers
                        raise TimeoutError
                    # The status decides: an answer that breaks off later is one all the same.
                    content = bytearray()
                    with suppress(OSError, HTTPError, http.client.HTTPException):
                        while len(content) < _MAX_ANSWER and (piece := response.read(4096)):
                            content += piece
            finally:
                connection.close()
        except (OSError, HTTPError, http.client.HTTPException) as error:
            raise self.failure(_describe(error)) from None
        return Answer(response.status, response.headers, bytes(content[:_MAX_ANSWER]))

    def error(self, answer: Answer, reason: str | None = None) -> DeliveryError:
        """Return the error that an answer means.

        reason: the service's own words, if its answer has a format; else the body is quoted.
        """
        if 300 <= answer.status < 400:  # noqa: PLR2004 - HTTP's classes
            reason = "a redirect, which is never followed: correct the URL"
        words = self.redact(reason or answer.body.decode(errors="replace"))[:_MAX_DETAIL]
        return DeliveryError(
            f"{self._service} answered {answer.status}: {words or 'no reason given'}",
            permanent=answer.status < 500 and answer.status not in _TRANSIENT_4XX,  # noqa: PLR2004
            retry_after=retry_after(answer.headers),
        )

    def failure(self, reason: str) -> DeliveryError:
        """Return the error for a request without an answer."""
        return DeliveryError(f"{self._service} cannot be reached: {self.redact(reason)[:_MAX_DETAIL]}")

    def redact(self, text: str) -> str:
        """Return the text on one line, without control characters and without the secrets."""
        return redact(text, self._secrets)

    def _parse(self, url: str) -> Url:
        try:
            target = parse_url(url)
        except LocationParseError:
            target = Url()
        if target.scheme not in ("http", "https") or not target.host or target.auth:
            raise DeliveryError(
                f"{self._service}: the URL is not one such as https://example.org/hook, without a user",
                permanent=True,
            )
        return target

    def _connect(self, target: Url, ends: float) -> HTTPConnection:
        """Return a connection to the first address that answers, after a check of all of them."""
        name = (target.host or "").strip("[]")
        port = target.port or (443 if target.scheme == "https" else 80)
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
        if self._allowed_networks is not None:
            self._refuse_special(addresses)
        failure: Exception = TimeoutError("timed out")
        for address in dict.fromkeys(addresses):
            left = min(self._timeout, ends - time.monotonic())
            if left <= 0:
                break
            # To the checked address itself: a second look-up of the name could give another one. Half of
            # the time is for TCP, half for TLS.
            connection = (
                HTTPSConnection(
                    address, port, timeout=left / 2, server_hostname=name, ssl_context=_tls_context()
                )
                if target.scheme == "https"
                else HTTPConnection(address, port, timeout=left / 2)
            )
            try:
                connection.connect()
            except (OSError, HTTPError) as error:
                connection.close()
                failure = error
            else:
                connection.timeout = self._timeout
                return connection
        raise failure

    def _refuse_special(self, addresses: Iterable[str]) -> None:
        for text in addresses:
            address = ip_address(text)
            inner = _inner(address)
            allowed = any(address in network or inner in network for network in self._allowed_networks or ())
            if _special(inner) and not allowed:
                raise DeliveryError(
                    f"{self._service} is at {inner}, which is a loopback, link-local or otherwise special "
                    "address: if that is meant, add its network to the channel's allowed_networks",
                    permanent=True,
                )


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text from outside on one line, without control characters and without the secrets.

    secrets: the longest first, where one may hold another.
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def secret_parts(url: str) -> list[str]:
    """Return what of a secret URL must not be told: all of it, its path, and each long piece of it."""
    path = url.partition("//")[2].partition("/")[2]
    return [part for part in (url, path, *re.split("[/?&=]", path)) if len(part) >= _MIN_SECRET]


def json_part(message: Message, template: str) -> bytes:
    """Return the part of a message that must be a JSON document."""
    text = message.parts[template]
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeliveryError(f"template {template}: the result is not JSON: {error}", permanent=True) from None
    return text.encode()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait: Retry-After, else X-RateLimit-Reset (epoch seconds)."""
    asked = headers.get("Retry-After") or ""
    if asked.isdecimal():
        return float(asked)
    reset = headers.get("X-RateLimit-Reset") or ""
    try:
        if asked:
            date = parsedate_to_datetime(asked)
            moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        else:
            moment = float(reset)
    except (ValueError, OverflowError):
        return None
    return max(moment - time.time(), 0.0) if math.isfinite(moment) else None


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _special(address: IPv4Address | IPv6Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )


def _describe(error: Exception) -> str:
    """Return an error in words. urllib3's own would repeat the address and its class."""
    cause = error.__cause__ or error.__context__ if isinstance(error, HTTPError) else None
    if isinstance(cause or error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause or error) or type(error).__name__
