# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Talk to the HTTP APIs of the components; what goes wrong is an error that names the URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

from ansible.module_utils.urls import ConnectionError as UrlConnectionError
from ansible.module_utils.urls import open_url

HTTP_TIMEOUT = 10


class ApiError(Exception):
    """A URL does not answer as it should; the message says which and how."""

    def __init__(self, message: str, code: int = 0) -> None:
        """Take the message, and the code of the answer if there is one."""
        super().__init__(message)
        self.code = code


def fetch(url: str, body: Any = None, token: str = "", method: str | None = None) -> bytes:
    """Return what a URL answers, to a POST if there is a ``body`` and no other ``method`` is given.

    :param token: bearer token to show, if any.
    :raises ApiError: it does not answer with success.
    """
    where = url.partition("?")[0]
    data = None if body is None else json.dumps(body)
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        with open_url(
            url, data=data, headers=headers, method=method, timeout=HTTP_TIMEOUT, use_proxy=False
        ) as response:
            content: bytes = response.read()
            return content
    except HTTPError as error:
        text = error.read(200).decode(errors="replace").strip()
        raise ApiError(f"{where} answers {error.code}: {text or error.reason}.", error.code) from error
    except URLError as error:
        raise ApiError(f"{where} does not answer: {error.reason}.") from error
    except (OSError, ValueError, HTTPException, UrlConnectionError) as error:
        raise ApiError(f"{where} does not answer: {error}.") from error


def fetch_json(
    url: str,
    query: Mapping[str, str] | None = None,
    token: str = "",
    body: Any = None,
) -> Any:
    """Return the JSON that a URL answers.

    :raises ApiError: it does not answer with JSON.
    """
    try:
        return json.loads(fetch(f"{url}?{urlencode(query)}" if query else url, body, token))
    except ValueError as error:
        raise ApiError(f"{url} does not answer with JSON; is another program on this port?") from error
