"""Pages in a real Redis, which comes and goes."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from fleetwatch.demo import cache
from fleetwatch.demo.cache import GENERATION, PAGE, PageCache, Result
from fleetwatch.demo.settings import Settings
from tests.common.services import free_port, wait_until

from .servers import RedisServer

LONG = 600.0
"""Seconds that no test takes."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Site:
    """What pages are made from, and how often one was made."""

    def __init__(self, url: str, seconds: float = LONG) -> None:
        self.counts: Counter[Result] = Counter()
        settings = Settings.model_validate({"redis_url": url, "cache_seconds": seconds})
        self.cache = PageCache(settings, self._count)
        self.text = "one"
        self.made = 0

    def _count(self, result: Result) -> None:
        self.counts[result] += 1

    def make(self) -> bytes:
        self.made += 1
        return self.text.encode()

    def page(self, name: str = "first") -> str:
        return self.cache.page(name, self.make).decode()


@pytest.fixture
def site(redis: RedisServer) -> Iterator[Site]:
    site = Site(redis.url)
    yield site
    site.cache.close()


def test_without_a_url_each_page_is_made_and_nothing_is_counted() -> None:
    site = Site("")
    assert [site.page(), site.page()] == ["one", "one"]
    site.cache.invalidate()
    assert (site.made, dict(site.counts), site.cache.state()) == (2, {}, "off")
    site.cache.close()


@pytest.mark.slow
def test_a_page_is_made_once_for_all_instances(redis: RedisServer, site: Site) -> None:
    other = Site(redis.url)
    assert [site.page(), site.page(), other.page()] == ["one"] * 3
    assert (site.made, other.made) == (1, 0)
    assert site.counts == {"miss": 1, "hit": 1}
    assert other.counts == {"hit": 1}
    assert site.page("second") == "one"
    assert site.made == 2
    assert site.cache.state() == "up"
    other.cache.close()


@pytest.mark.slow
def test_after_a_change_no_instance_has_an_old_page(redis: RedisServer, site: Site) -> None:
    other = Site(redis.url)
    assert site.page() == other.page() == "one"
    for text in ("two", "three"):
        site.text = other.text = text
        other.cache.invalidate()
        assert [site.page(), other.page(), site.page("second")] == [text] * 3
    other.cache.close()


@pytest.mark.slow
def test_a_page_that_was_begun_before_a_change_is_not_used_after_it(site: Site) -> None:
    def slowly() -> bytes:
        old = site.make()
        site.text = "two"
        site.cache.invalidate()
        return old

    assert site.cache.page("first", slowly) == b"one"
    assert site.page() == "two"
    assert site.counts == {"miss": 2}


@pytest.mark.slow
def test_a_page_ends_with_its_time(redis: RedisServer) -> None:
    site = Site(redis.url, 0.2)
    assert site.page() == "one"
    site.text = "two"
    wait_until(lambda: site.page() == "two", what="the page is made anew")
    site.cache.close()


@pytest.mark.slow
def test_nothing_stays_in_redis_for_longer_than_the_setting_says(redis: RedisServer, site: Site) -> None:
    site.page()
    with Redis.from_url(redis.url) as client:
        assert client.keys() == [f"{PAGE}first".encode()]
        assert LONG / 2 < client.ttl(f"{PAGE}first") <= LONG


@pytest.mark.slow
def test_pages_may_hold_anything_and_none_is_mixed_up_with_another(site: Site) -> None:
    for number, page in enumerate([b"", b"\n", b"a\nb\n", bytes(range(256))]):
        for _ in range(2):
            assert site.cache.page(str(number), lambda page=page: page) == page  # type: ignore[misc]
    site.cache.invalidate()
    assert site.counts == {"miss": 4, "hit": 4}


@pytest.mark.slow
def test_what_making_a_page_raises_is_raised_and_not_cached(site: Site) -> None:
    def fail() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        site.cache.page("first", fail)
    assert site.page() == "one"


@pytest.mark.slow
def test_generations_do_not_come_again_when_redis_forgot_them(redis: RedisServer, site: Site) -> None:
    found = set()
    with Redis.from_url(redis.url) as client:
        for _ in range(20):
            site.cache.invalidate()
            found.add(client.get(GENERATION))
            client.delete(GENERATION)
    assert len(found) == 20


@pytest.mark.slow
def test_a_redis_that_went_and_came_back_is_used_again(
    redis: RedisServer, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert site.page() == "one"
    redis.kill()
    site.text = "two"
    assert [site.page() for _ in range(50)] == ["two"] * 50
    site.cache.invalidate()
    assert site.counts == {"miss": 1, "error": 50}
    assert site.cache.state() == "down"
    assert [each.levelname for each in caplog.records] == ["WARNING"]  # one, not fifty
    redis.start()
    wait_until(lambda: site.page() and site.counts["hit"], what="the cache is used again")
    assert site.cache.state() == "up"
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


def _leave_alone(cache: PageCache) -> None:
    """Let one process have trouble with a Redis that the others can use."""
    cache._failed(OSError("as if it had timed out"))


def _end_of_the_pause(cache: PageCache) -> None:
    cache._try_at = 0.0


@pytest.mark.slow
def test_a_change_that_redis_could_not_be_told_of_is_told_before_a_page_of_before_is_used(
    redis: RedisServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PAUSE", LONG)
    other = Site(redis.url)
    assert [site.page(), other.page()] == ["one", "one"]
    _leave_alone(site.cache)
    site.text = other.text = "two"
    site.cache.invalidate()
    assert site.page() == "two"
    assert site.counts == {"miss": 1, "error": 1}
    _end_of_the_pause(site.cache)
    assert [site.page(), other.page(), site.page()] == ["two"] * 3
    assert site.counts == {"miss": 2, "error": 1, "hit": 1}
    assert other.counts == {"hit": 2}
    other.cache.close()


@pytest.mark.slow
def test_while_redis_takes_no_change_no_page_comes_from_it(
    site: Site, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PAUSE", 0.0)
    assert site.page() == "one"
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "1")  # it reads, and refuses to write
        site.text = "two"
        site.cache.invalidate()
        assert [site.page(), site.page()] == ["two"] * 2
        assert site.counts == {"miss": 1, "error": 2}
        client.config_set("maxmemory", "0")
    assert [site.page(), site.page()] == ["two"] * 2
    assert site.counts == {"miss": 2, "error": 2, "hit": 1}


@pytest.mark.slow
def test_who_makes_no_pages_tells_of_its_changes_by_and_by(
    redis: RedisServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PAUSE", LONG)
    worker = Site(redis.url)
    assert site.page() == "one"
    _leave_alone(worker.cache)
    site.text = "two"
    worker.cache.invalidate()
    worker.cache.catch_up()
    assert site.page() == "one"
    _end_of_the_pause(worker.cache)
    worker.cache.catch_up()
    assert [site.page(), site.page()] == ["two", "two"]
    worker.cache.catch_up()  # there is nothing left to tell
    assert site.page() == "two"
    assert site.made == 2
    worker.cache.close()


@pytest.mark.slow
def test_a_restart_between_two_requests_is_no_error(redis: RedisServer, site: Site) -> None:
    assert site.page() == "one"
    redis.kill()
    redis.start()
    assert site.page() == "one"
    assert site.counts == {"miss": 2}


@pytest.mark.slow
def test_a_frozen_redis_is_left_alone_and_then_tried_by_one_request(
    redis: RedisServer, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    client = site.cache._redis
    assert client is not None
    really = client.mget

    def mget(*keys: str) -> object:
        asked.append(threading.current_thread().name)
        return really(*keys)

    client.mget = mget  # type: ignore[assignment,method-assign]
    assert site.page() == "one"
    monkeypatch.setattr(cache, "_PAUSE", LONG)
    redis.freeze()
    try:
        began = time.monotonic()
        assert [site.page() for _ in range(100)] == ["one"] * 100
        assert time.monotonic() - began < 20  # the first one waits for a quarter of a second
        assert len(asked) == 2
        site.cache._try_at = 0.0  # the pause is over
        threads = [threading.Thread(target=site.page) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(asked) == 3
        assert site.counts == {"miss": 1, "error": 108}
        assert len(caplog.records) == 1
    finally:
        redis.thaw()
    site.cache._try_at = 0.0
    assert site.page() == "one"
    assert site.counts["hit"] == 1


def test_a_redis_that_was_never_there_costs_no_page() -> None:
    site = Site(f"redis://127.0.0.1:{free_port()}/0")
    assert [site.page(), site.page()] == ["one", "one"]
    assert site.counts == {"error": 2}
    assert site.cache.state() == "down"
    site.cache.close()


@pytest.mark.slow
def test_a_redis_that_refuses_is_an_error_without_the_password(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("requirepass", "the-right-one")
    site = Site(redis.url.replace("//", "//:the-wrong-one@"))
    assert site.page() == "one"
    assert site.counts == {"error": 1}
    (event,) = caplog.records
    assert "the-wrong-one" not in str(vars(event))
    right = Site(redis.url.replace("//", "//:the-right-one@"))
    assert right.page() == "one"
    assert right.counts == {"miss": 1}
    for each in (site, right):
        each.cache.close()
