# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""HTTP from a host to a service of its own: no proxy, and TLS by the very certificate that was configured.

A certificate is made for the name that people use, and the host asks at 127.0.0.1. So the name is not
compared; the service must show the configured certificate instead, which is stricter.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

TIMEOUT = 30
"""Seconds; Grafana answers a reload only when everything is stored."""


class HttpError(OSError):
    """The service answered, but not with success."""

    def __init__(self, url: str, status: int, words: str) -> None:
        """Take the URL, the status and the beginning of the answer."""
        super().__init__(f"{url} answers {status}{': ' if words else ''}{words}")
        self.status = status


def _opener(certificate: str | None) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        # The file may begin with the service's own certificate rather than with an authority.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)  # home-made ones lack extensions
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def get(
    url: str,
    *,
    method: str = "GET",
    login: tuple[str, str] | None = None,
    body: Any = None,
    certificate: str | None = None,
) -> Any:
    """Return the JSON that a service on this host answers, or its text if it is none.

    :param login: user name and password.
    :param body: sent as JSON.
    :param certificate: file with the certificate that the service must show.
    :raises HttpError: it answered, but not with success.
    :raises OSError: it did not answer, or shows another certificate.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - http(s) of ours
    try:
        with _opener(certificate).open(request, timeout=TIMEOUT) as response:
            text = response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            words = error.read(500).decode(errors="replace").strip()
        raise HttpError(url, error.code, words) from error
    try:
        return json.loads(text)
    except ValueError:
        return text
