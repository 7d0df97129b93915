"""Pages of transactions in Redis, for a short time and for all instances together.

    cache = PageCache(settings, lambda result: metrics.cache_requests.labels(result).inc())
    body = cache.page("limit=50", lambda: render(storage.page(50)))
    cache.invalidate()  # after the commit of something that pages show

Redis may be away at any time: pages are then made each time, and nobody waits for it for long.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Literal, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fleetwatch.demo.settings import Settings

Result = Literal["hit", "miss", "error"]
State = Literal["off", "up", "down"]

GENERATION = "transactions:generation"
"""Key of a word that is another one after each change; a page of another generation is not used."""
PAGE = "transactions:page:"
"""What the keys of pages begin with."""

_TIMEOUT = 0.25  # seconds for connecting, and for each answer
_PAUSE = 2.0  # seconds for which a Redis that failed is left alone

T = TypeVar("T")
log = logging.getLogger(__name__)


class PageCache:
    """The cache. Safe to use from several threads; no method raises anything of its own."""

    def __init__(self, settings: Settings, count: Callable[[Result], None] = lambda _result: None) -> None:
        """Prepare, without connecting. Does nothing when the settings name no Redis.

        count: is told what came of each look into the cache.
        """
        url = settings.redis_url.get_secret_value()
        self._redis = _client(url) if url else None
        self._milliseconds = max(int(settings.cache_seconds * 1000), 1)
        self._count = count
        self._lock = Lock()
        self._failing = False
        self._try_at = time.monotonic()
        self._changes = self._told = 0  # how many there were, and how many of them Redis knows of

    def page(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return a page as it was cached, or else as it is made, to be cached.

        name: the same for the same page.
        make: makes it; what it raises is raised here.
        """
        if self._redis is None:
            return make()
        self.catch_up()
        known = self._told == self._changes  # else what is there may be from before a change of ours
        found = self._ask(lambda redis: redis.mget(GENERATION, PAGE + name)) if known else None
        if found is None:
            self._count("error")
            return make()
        # The generation is read before the page is made: a change meanwhile makes it one of the past.
        generation, kept = found[0] or b"", found[1] or b""
        kept_in, separator, body = kept.partition(b"\n")
        if separator and kept_in == generation:
            self._count("hit")
            return bytes(body)
        self._count("miss")
        body = make()
        self._ask(lambda redis: redis.set(PAGE + name, generation + b"\n" + body, px=self._milliseconds))
        return body

    def invalidate(self) -> None:
        """Let no page of before be used again.

        While Redis cannot be told, this process uses none at all; others may, until they end with their time.
        """
        with self._lock:
            self._changes += 1
        self.catch_up()

    def catch_up(self) -> None:
        """Do what ``invalidate`` could not do, if there is any and Redis is there again."""
        changes = self._changes
        if self._told == changes:
            return
        # Not a counter: one that is lost with its Redis would count the same numbers again.
        if self._ask(lambda redis: redis.set(GENERATION, secrets.token_hex(8))):
            with self._lock:
                self._told = max(self._told, changes)

    def state(self) -> State:
        """Return how the cache is, which asks Redis unless it failed just now."""
        if self._redis is None:
            return "off"
        return "up" if self._ask(lambda redis: redis.ping()) else "down"

    def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            self._redis.close()

    def _ask(self, command: Callable[[Redis], T]) -> Any:
        """Return what Redis answers, ``None`` when it does not or is left alone."""
        if self._redis is None or not self._may_try():
            return None
        try:
            answer = command(self._redis)
        except (RedisError, OSError) as error:
            self._failed(error)
            return None
        self._succeeded()
        return answer

    def _may_try(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._try_at:
                return False
            if self._failing:  # one tries, the others go on without
                self._try_at = now + _PAUSE
            return True

    def _failed(self, error: Exception) -> None:
        with self._lock:
            known, self._failing = self._failing, True
            self._try_at = time.monotonic() + _PAUSE
        if not known:
            log.warning("cache not usable, pages come from the database", extra={"error": str(error)})

    def _succeeded(self) -> None:
        if not self._failing:
            return
        with self._lock:
            known, self._failing = self._failing, False
            self._try_at = time.monotonic()
        if known:
            log.info("cache usable again")


def _client(url: str) -> Redis:
    return Redis.from_url(
        url,
        socket_connect_timeout=_TIMEOUT,
        socket_timeout=_TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # the next request is the next attempt
    )
