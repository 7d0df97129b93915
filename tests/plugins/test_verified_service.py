"""A change is proved before it is live: verified_service against a systemd that the test plays."""

from __future__ import annotations

import getpass
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.managed_file import NotAFileError
from ansible_collections.fleetwatch.monitoring.plugins.modules import verified_service
from ansible_collections.fleetwatch.monitoring.plugins.modules.verified_service import (
    VerifiedService,
    read_metric,
)

UNIT = "demo.service"


class Exit(Exception):  # noqa: N818 - the module's good end
    """The module left with a result."""


class Fail(Exception):  # noqa: N818 - the module's bad end
    """The module left with a message."""


class Systemd:
    """One unit, and every systemctl call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.active = "inactive"
        self.restarts = 0
        self.crashes = False

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        verb = arguments[0]
        if verb == "show":
            state = f"ActiveState={self.active}\nUnitFileState=enabled\nMainPID=0\n"
            return 0, f"{state}NRestarts={self.restarts}\nNeedDaemonReload=no\n", ""
        self.calls.append(" ".join(arguments))
        if verb in {"start", "restart"}:
            self.active, self.restarts = "active", int(self.crashes)
        if verb == "stop" or (verb == "disable" and UNIT in arguments):
            self.active = "inactive"
        return 0, "", ""


class Module:
    """What verified_service uses of AnsibleModule."""

    def __init__(self, tmpdir: Path, systemd: Systemd, params: dict[str, Any], *, check_mode: bool) -> None:
        self.tmpdir, self.systemd, self.params, self.check_mode = str(tmpdir), systemd, params, check_mode
        self.warnings: list[str] = []

    def get_bin_path(self, name: str, *, required: bool) -> str:
        assert required
        return f"/usr/sbin/{name}"

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def exit_json(self, **result: Any) -> NoReturn:
        raise Exit(result)

    def fail_json(self, msg: str) -> NoReturn:
        raise Fail(msg)

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "systemctl":
            return self.systemd(*argv[1:])
        if argv[0] == "/usr/sbin/useradd":
            self.systemd.calls.append(" ".join(argv))
            return 0, "", ""
        if argv[0] == "journalctl":
            return 0, "the last words", ""
        text = Path(argv[-1]).read_text()
        return (1, "", f"{argv[-1]}: bad word") if "bad" in text else (0, "", "")


class Host:
    """A host in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "etc/demo"
        self.systemd = Systemd()

    def run(self, *, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "name": "demo",
            "config_dir": str(self.config),
            "user": getpass.getuser(),
            "files": {"demo.yml": "good"},
            "secrets": {},
            "live": [],
            "prune": [],
            "validate": [["/bin/sh", "{config}/demo.yml"]],
            "units": {UNIT: "[Service]\n"},
            "instances": {},
            "rolling": {},
            "mask": [],
            "activation": "reload",
            "reload_check": None,
            "ready": [],
            "certificate": None,
            "timeout": 1,
        }
        module = Module(self.folder, self.systemd, {**defaults, **params}, check_mode=check_mode)
        self.systemd.calls = []
        with pytest.raises(Exit) as left:
            VerifiedService(module).run()
        result: dict[str, Any] = left.value.args[0]
        return result

    def fail(self, **params: Any) -> str:
        with pytest.raises(Fail) as left:
            self.run(**params)
        return str(left.value)

    def content(self) -> dict[str, str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_text() for path in files}


RELOAD_CHECK = {"url": "http://127.0.0.1:1/metrics", "metric": "demo"}


def metrics(host: Host, refused: str, *, successful: float = 1.0) -> Callable[[dict[str, str], str], float]:
    """Return a read_metric for a service that at a reload refuses a file with the content ``refused``.

    As in a real one, the metrics tell of a reload only a moment after it was asked for.
    """
    state = {"last_reload_successful": successful, "last_reload_success_timestamp_seconds": 1.0}
    asked = told = 0

    def read(_: dict[str, str], suffix: str) -> float:
        nonlocal asked, told
        if told < asked:
            told = asked
            taken = (host.config / "demo.yml").read_text() != refused
            state["last_reload_successful"] = float(taken)
            state["last_reload_success_timestamp_seconds"] += taken
        asked = host.systemd.calls.count(f"reload {UNIT}")
        return state[suffix]

    return read


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setattr(verified_service, "UNIT_DIR", units)
    monkeypatch.setattr(verified_service, "PENDING_DIR", tmp_path / "run")
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    return Host(tmp_path)


def test_first_run_starts_and_second_changes_nothing(host: Host) -> None:
    first = host.run()
    assert first["changed"]
    assert first["activated"] == {UNIT: "start"}
    assert "start demo.service" in host.systemd.calls
    again = host.run()
    assert not again["changed"]
    assert host.systemd.calls == []
    assert (host.config / "demo.yml").stat().st_mode & 0o7777 == 0o640


def test_missing_user_is_made_first(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def group(_: str) -> int:
        made = any("useradd" in call for call in host.systemd.calls)
        return os.getgid() if made else verified_service.NO_GROUP

    monkeypatch.setattr(verified_service, "primary_group", group)
    assert host.run(user="demo", check_mode=True)["changed"]
    assert host.systemd.calls == []
    host.run(user="demo")
    assert host.systemd.calls[0] == (
        "/usr/sbin/useradd --system --no-create-home --home-dir /var/lib/demo --shell /usr/sbin/nologin"
        " --user-group demo"
    )


def test_changed_file_reloads_and_changed_unit_restarts(host: Host) -> None:
    host.run()
    assert host.run(files={"demo.yml": "better"})["activated"] == {UNIT: "reload"}
    changed_unit = {UNIT: "[Service]\nNice=1\n"}
    assert host.run(files={"demo.yml": "better"}, units=changed_unit)["activated"] == {UNIT: "restart"}
    assert host.systemd.calls[0] == "daemon-reload"


def test_refused_change_touches_nothing(host: Host) -> None:
    host.run()
    before = host.content()
    message = host.fail(files={"demo.yml": "bad"})
    assert "nothing was changed" in message
    assert f"{host.config}/demo.yml: bad word" in message, "the checker's words name the real file"
    assert host.content() == before
    assert host.systemd.calls == []


def test_service_that_does_not_stay_up_gets_its_old_files_back(host: Host) -> None:
    host.run(activation="restart")
    before = host.content()
    host.systemd.crashes = True
    message = host.fail(files={"demo.yml": "worse"}, activation="restart")
    assert "does not stay up" in message
    assert "the last words" in message
    assert host.content() == before | {"run/demo.pending": ""}, "it is not well yet"
    assert host.systemd.calls.count("restart demo.service") == 2


def test_first_run_that_fails_leaves_no_files(host: Host) -> None:
    host.systemd.crashes = True
    message = host.fail()
    assert "never run here" in message
    assert host.content() == {}
    assert host.systemd.active == "inactive"


def test_not_ready_in_time_is_taken_back(host: Host) -> None:
    host.run()
    before = host.content()
    message = host.fail(files={"demo.yml": "deaf"}, ready=["http://127.0.0.1:1/ready"])
    assert "not ready after 1 s: http://127.0.0.1:1/ready" in message
    assert "As before the change, there is no answer at http://127.0.0.1:1/ready." in message
    assert host.content() == before | {"run/demo.pending": ""}, "nobody saw it well"


def test_what_did_not_answer_before_is_not_waited_for_to_put_a_change_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the new URL of a service whose port the change was to move."""
    host.run()
    asked = []

    def not_ready(url: str, _: str | None) -> str:
        asked.append((url, (host.config / "demo.yml").read_text()))
        return "" if url == "http://old" else f"{url}: refused"

    monkeypatch.setattr(verified_service, "not_ready", not_ready)
    message = host.fail(files={"demo.yml": "moved"}, ready=["http://old", "http://new"], timeout=0)
    assert "was started with them. As before the change, there is no answer at http://new." in message
    assert asked[:2] == [("http://old", "good"), ("http://new", "good")]
    assert set(asked[2:]) == {("http://old", "moved"), ("http://new", "moved"), ("http://old", "good")}


def test_check_mode_checks_and_changes_nothing(host: Host) -> None:
    result = host.run(check_mode=True)
    assert result["changed"]
    assert result["activated"] == {UNIT: "start"}
    assert host.content() == {}
    assert host.systemd.calls == []
    with pytest.raises(Fail):
        host.run(check_mode=True, files={"demo.yml": "bad"})


def test_check_mode_waits_for_a_program_that_is_not_there_yet(host: Host) -> None:
    result = host.run(check_mode=True, validate=[["/no/such/program", "{config}/demo.yml"]])
    assert result["changed"]


def test_live_files_activate_nothing(host: Host) -> None:
    files = {"demo.yml": "good", "targets/a.json": "1"}
    host.run(files=files)
    result = host.run(files=files | {"targets/a.json": "2"}, live=["targets/*"])
    assert result["changed_files"] == [str(host.config / "targets/a.json")]
    assert result["activated"] == {}
    assert host.systemd.calls == []


def test_files_no_longer_wanted_go(host: Host) -> None:
    host.run(files={"demo.yml": "good", "rules/a.yml": "1", "rules/b.yml": "2"})
    result = host.run(files={"demo.yml": "good", "rules/a.yml": "1"}, prune=["rules"])
    assert result["changed_files"] == [str(host.config / "rules/b.yml")]
    assert not (host.config / "rules/b.yml").exists()
    assert result["activated"] == {UNIT: "reload"}


def test_files_no_longer_wanted_go_at_any_depth(host: Host) -> None:
    host.run(files={"demo.yml": "good", "boards/a.json": "1", "boards/x/b.json": "2", "boards/x/c.json": "3"})
    result = host.run(files={"demo.yml": "good", "boards/x/c.json": "3"}, prune=["boards"])
    assert sorted(result["changed_files"]) == [
        str(host.config / name) for name in ("boards/a.json", "boards/x/b.json")
    ]
    assert (host.config / "boards/x/c.json").exists()


def test_interrupted_run_is_completed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()

    def killed(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VerifiedService, "_activate", killed)
        with pytest.raises(KeyboardInterrupt):
            host.run(files={"demo.yml": "better"})
    assert (host.config / "demo.yml").read_text() == "better"
    assert host.run(files={"demo.yml": "better"})["activated"] == {UNIT: "reload"}
    assert not host.run(files={"demo.yml": "better"})["changed"]


def test_secret_is_written_but_not_shown(host: Host) -> None:
    result = host.run(secrets={"credentials/key": "hunter2"})
    assert (host.config / "credentials/key").read_text() == "hunter2"
    assert "hunter2" not in str(result)
    assert "hunter3" not in str(host.run(secrets={"credentials/key": "hunter3"}))


def test_stopped_service_is_started(host: Host) -> None:
    host.run()
    host.systemd.active = "inactive"
    assert host.run()["activated"] == {UNIT: "start"}
    host.systemd.active = "failed"
    assert host.run()["activated"] == {UNIT: "restart"}


def test_reload_that_the_service_refuses_is_taken_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    before = host.content()
    monkeypatch.setattr(verified_service, "read_metric", metrics(host, "worse"))
    message = host.fail(files={"demo.yml": "worse"}, reload_check=RELOAD_CHECK)
    assert "refused the new configuration" in message
    assert "the service runs with them" in message
    assert host.content() == before


def test_earlier_failed_reload_does_not_stand_in_the_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    monkeypatch.setattr(verified_service, "read_metric", metrics(host, "worse", successful=0.0))
    result = host.run(files={"demo.yml": "better"}, reload_check=RELOAD_CHECK)
    assert result["activated"] == {UNIT: "reload"}


def test_new_unit_that_fails_leaves_the_old_one_running(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    before = host.content()

    def not_up(service: VerifiedService, started: list[str], urls: list[str]) -> None:
        if "second.service" in started:
            raise verified_service.ActivationError("second.service does not stay up.")

    monkeypatch.setattr(VerifiedService, "_wait_ready", not_up)
    message = host.fail(
        files={"demo.yml": "more"}, units={UNIT: "[Service]\n", "second.service": "[Service]\n"}
    )
    assert "the service runs with them" in message
    assert "disable --now second.service" in host.systemd.calls
    assert "stop demo.service" not in host.systemd.calls
    assert host.content() == before


class Instances:
    """Several units of a template, and their URLs, which answer only while the unit runs."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.broken: set[str] = set()
        """Not ready after the next start; well again after one more."""
        self.failed: set[str] = set()

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        verb, *units = [argument for argument in arguments if not argument.startswith("-")]
        if verb == "show":
            unit = units[-1]
            state = f"ActiveState={'active' if unit in self.active else 'inactive'}\nMainPID=0\nNRestarts=0\n"
            enabled = "enabled" if unit in self.enabled else "disabled"
            return 0, f"{state}UnitFileState={enabled}\nNeedDaemonReload=no\n", ""
        if verb == "list-units":
            return 0, "".join(f"{unit} loaded active running\n" for unit in sorted(self.active)), ""
        self.calls.append(" ".join([verb, *units]))
        if verb in {"start", "restart"}:
            self.active |= {*units}
            self.broken -= self.failed & {*units}
            self.failed |= self.broken & {*units}
        elif verb == "enable":
            self.enabled |= {*units}
        elif verb == "disable":
            self.active -= {*units}
            self.enabled -= {*units}
        return 0, "", ""

    def not_ready(self, url: str, certificate: str | None = None) -> str:
        unit = url.removeprefix("http://")
        self.calls.append(f"ask {unit}")
        return f"{url}: refused" if unit in self.failed & self.broken or unit not in self.active else ""

    def done(self) -> list[str]:
        """Return what was done to the instances, without what was asked before."""
        calls = [call for call in self.calls if call.split()[0] in {"start", "restart", "ask", "disable"}]
        return list(itertools.dropwhile(lambda call: call.startswith("ask "), calls))


TEMPLATE = "demo@.service"


@pytest.fixture
def instances(host: Host, monkeypatch: pytest.MonkeyPatch) -> Instances:
    systemd = Instances()
    host.systemd = systemd  # type: ignore[assignment]
    monkeypatch.setattr(verified_service, "not_ready", systemd.not_ready)
    return systemd


def scaled(count: int, content: str = "[Service]\n", text: str = "good") -> dict[str, Any]:
    units = [f"demo@{number}.service" for number in range(1, count + 1)]
    return {
        "units": {TEMPLATE: content, "demo.target": "[Unit]\n"},
        "instances": {TEMPLATE: count},
        "rolling": {unit: f"http://{unit}" for unit in units},
        "files": {"demo.yml": text},
        "activation": "restart",
    }


def test_instances_of_a_template_run_and_the_second_time_nothing_changes(
    host: Host, instances: Instances
) -> None:
    assert host.run(**scaled(2))["activated"] == {
        "demo@1.service": "start",
        "demo@2.service": "start",
        "demo.target": "start",
    }
    assert instances.active == instances.enabled == {"demo@1.service", "demo@2.service", "demo.target"}
    assert {"units/demo@.service", "units/demo.target"} <= host.content().keys()
    assert host.run(**scaled(2))["changed"] is False


@pytest.mark.parametrize("change", [{"content": "[Service]\nNice=1\n"}, {"text": "better"}])
def test_instances_are_changed_one_after_another(
    host: Host, instances: Instances, change: dict[str, str]
) -> None:
    host.run(**scaled(3))
    activated = host.run(**scaled(3, **change))["activated"]
    assert activated == {f"demo@{number}.service": "restart" for number in (1, 2, 3)}, "not the target"
    assert instances.done() == [
        f"{verb} demo@{number}.service" for number in (1, 2, 3) for verb in ("restart", "ask")
    ]


def test_fewer_instances_leave_none_behind(host: Host, instances: Instances) -> None:
    host.run(**scaled(3))
    result = host.run(**scaled(1))
    assert result["activated"] == {"demo@2.service": "stop", "demo@3.service": "stop"}
    assert instances.active == instances.enabled == {"demo@1.service", "demo.target"}
    assert host.run(**scaled(1))["changed"] is False
    assert host.run(**scaled(2))["activated"] == {"demo@2.service": "start"}


def test_an_instance_that_is_enabled_but_down_goes_too(host: Host, instances: Instances) -> None:
    host.run(**scaled(1))
    wants = verified_service.UNIT_DIR / "demo.target.wants"
    wants.mkdir()
    (wants / "demo@7.service").symlink_to(verified_service.UNIT_DIR / TEMPLATE)
    (wants / "other@7.service").symlink_to(verified_service.UNIT_DIR / TEMPLATE)
    assert host.run(**scaled(1))["activated"] == {"demo@7.service": "stop"}


def test_the_first_instance_that_fails_keeps_the_others_as_they_are(host: Host, instances: Instances) -> None:
    host.run(**scaled(3))
    before = host.content()
    instances.broken = {"demo@2.service"}
    message = host.fail(**scaled(3, text="worse"))
    assert "not ready after 1 s: http://demo@2.service: refused" in message
    assert "the service runs with them" in message
    assert host.content() == before
    assert not any("demo@3.service" in call for call in instances.done())
    assert (
        instances.active == {*instances.enabled} == {*(f"demo@{n}.service" for n in (1, 2, 3)), "demo.target"}
    )
    assert instances.done()[:2] == ["restart demo@1.service", "ask demo@1.service"]


def test_what_could_not_be_put_back_is_completed_by_the_next_run(
    host: Host, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run(**scaled(3))
    with monkeypatch.context() as patch:
        ready = iter([""] * 4)  # all are ready, the first takes the change; from then on nothing is ready
        patch.setattr(verified_service, "not_ready", lambda url, _: next(ready, f"{url}: refused"))
        assert "the service is still not well" in host.fail(**scaled(3, text="worse"))
    # The second instance runs with the worse file still, and a change that fails early does not reach it.
    instances.broken = {"demo@1.service"}
    assert "the service runs with them" in host.fail(**scaled(3, text="worst"))
    restarted = {f"demo@{number}.service": "restart" for number in (1, 2, 3)}
    assert host.run(**scaled(3))["activated"] == restarted
    assert host.run(**scaled(3))["changed"] is False


def test_what_was_put_back_needs_no_further_run(host: Host, instances: Instances) -> None:
    host.run(**scaled(3))
    instances.broken = {"demo@2.service"}
    host.fail(**scaled(3, text="worse"))
    assert host.run(**scaled(3))["changed"] is False


def test_a_target_that_was_started_is_not_restarted_to_put_it_back(
    host: Host, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run(**scaled(2))
    instances.active -= {"demo.target"}
    changed = scaled(2, text="worse") | {"ready": ["http://all"], "timeout": 0}
    monkeypatch.setattr(
        verified_service, "not_ready", lambda url, _: f"{url}: refused" if url == "http://all" else ""
    )
    host.fail(**changed)
    assert "start demo.target" in instances.calls
    assert "restart demo.target" not in instances.calls


def test_a_link_in_place_of_a_file_is_not_followed(host: Host) -> None:
    host.run()
    (host.folder / "secret").write_text("of root")
    (host.config / "demo.yml").unlink()
    (host.config / "demo.yml").symlink_to(host.folder / "secret")
    with pytest.raises(NotAFileError, match=r"demo\.yml is no regular file"):
        host.run()
    (host.config / "demo.yml").unlink()
    os.mkfifo(host.config / "demo.yml")
    with pytest.raises(NotAFileError):
        host.run()


def test_an_added_instance_that_fails_is_gone_again(host: Host, instances: Instances) -> None:
    host.run(**scaled(1))
    instances.broken = {"demo@2.service"}
    assert "demo@2.service: refused" in host.fail(**scaled(2))
    assert instances.active == instances.enabled == {"demo@1.service", "demo.target"}
    assert "restart demo@1.service" not in instances.calls


def test_an_added_instance_that_fails_with_a_new_file_is_not_expected_to_answer(
    host: Host, instances: Instances
) -> None:
    host.run(**scaled(1))
    instances.broken = {"demo@2.service"}
    assert "the service runs with them" in host.fail(**scaled(2, text="worse"))
    assert host.run(**scaled(1))["changed"] is False


def test_first_instances_that_fail_leave_nothing(host: Host, instances: Instances) -> None:
    instances.broken = {"demo@1.service"}
    assert "never run here" in host.fail(**scaled(2))
    assert instances.active == instances.enabled == set()
    assert host.content() == {}


@pytest.mark.parametrize("name", ["demo@.servce", "demo.target"])
def test_instances_must_be_of_a_template(host: Host, instances: Instances, name: str) -> None:
    message = host.fail(**{**scaled(1), "instances": {name: 2}})
    assert f"instances: {name} is no template among the units" in message


def test_metric_is_read_with_and_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'# TYPE demo_ok gauge\ndemo_ok 1\ndemo_time{a="b"} 1.5e+09\n'

    class Answer:
        def read(self) -> bytes:
            return text

    monkeypatch.setattr(verified_service, "open_url", lambda *_, **__: Answer())
    check = {"url": "http://x", "metric": "demo"}
    assert read_metric(check, "ok") == 1
    assert read_metric(check, "time") == 1.5e9
    assert read_metric(check, "absent") is None
