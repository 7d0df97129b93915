#!/usr/bin/python
"""Ansible module: a service's configuration and units, proved before they are live."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verified_service
short_description: Configure and run a systemd service, and prove each change before it is live
description:
  - Writes the configuration files and units of one service, checks them, activates them and waits until the
    service reports that it is ready.
  - New files are rendered beside the old ones and checked with the service's own checker. A change that the
    checker refuses fails with the checker's words, and nothing on the host is changed.
  - When the service does not take the change, or does not become ready, the files and units that were there
    before are put back and activated, and the task fails with the reason.
  - A run that was interrupted between writing and activating is completed by the next run.
  - A service whose program was replaced on disk is restarted.
  - A service may be instances of a template unit. With O(rolling) these are changed one after another, so
    that the others go on serving; if one does not take the change, the next is left as it is.
attributes:
  check_mode:
    support: full
    description: The new files are checked with the service's own checker in check mode too.
  diff_mode:
    support: full
    description: The content of O(secrets) is never shown.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  config_dir:
    description: Folder of the configuration files. Made with mode C(0750) when it is missing.
    type: path
  user:
    description: System user that the service runs as, made when it is missing. Its group may read the files.
    type: str
    required: true
  files:
    description: Path below O(config_dir) to content.
    type: dict
    default: {}
  secrets:
    description: Like O(files), for files that hold secrets.
    type: dict
    default: {}
  live:
    description:
      - Patterns of paths below O(config_dir) that the service reads again by itself; a change of only these
        activates nothing.
    type: list
    elements: str
    default: []
  prune:
    description: Folders below O(config_dir) in which files that are not listed are removed, at any depth.
    type: list
    elements: str
    default: []
  validate:
    description:
      - Commands, as argument lists, that must succeed before anything is changed. C({config}) stands for the
        folder with the new files.
    type: list
    elements: list
    default: []
  units:
    description:
      - Unit name, such as V(prometheus.service), to content. They are activated in this order.
      - A changed target (V(.target)) is read again, but never restarted,
        which would restart all that it groups.
    type: dict
    required: true
  instances:
    description:
      - Template unit among O(units), such as V(worker@.service), to the number of its instances. Those from
        1 to the number run; others are stopped and disabled once the service is ready.
    type: dict
    default: {}
  rolling:
    description:
      - Unit or instance, such as V(worker@1.service), to a URL that answers with a status of 200 once it is
        ready. The next unit is activated only after that.
    type: dict
    default: {}
  mask:
    description: Units that are stopped and masked, such as the one that a package brings along.
    type: list
    elements: str
    default: []
  activation:
    description: How running services take changed files. A changed unit is always restarted.
    type: str
    choices: [reload, restart]
    default: restart
  reload_check:
    description:
      - How to see that a reload was taken, for programs with the usual metrics
        C(<metric>_last_reload_successful) and C(<metric>_last_reload_success_timestamp_seconds).
    type: dict
    suboptions:
      url:
        description: URL of the metrics.
        type: str
        required: true
      metric:
        description: Prefix of the two metrics.
        type: str
        required: true
  ready:
    description: URLs that answer with a status of 200 once the service is ready.
    type: list
    elements: str
    default: []
  certificate:
    description:
      - Certificate file that the service itself uses, for O(ready) with C(https). The service must show
        it; its
        names do not matter, since the host asks itself.
      - Without it, the certificate must be one that the host trusts, for the name or address in O(ready).
    type: path
  timeout:
    description:
      - Seconds to wait for readiness, and for a reload to be taken. A service that does not stay up fails at
        once; this is for one that is slow, as on a host that is emulated.
    type: int
    default: 180
author:
  - Fleetwatch
"""

EXAMPLES = r"""
- name: Configure and run Prometheus
  fleetwatch.monitoring.verified_service:
    name: prometheus
    user: prometheus
    config_dir: /etc/prometheus
    files:
      prometheus.yml: "{{ prometheus_config | to_nice_yaml }}"
    validate:
      - [promtool, check, config, "{config}/prometheus.yml"]
    units:
      prometheus.service: "{{ prometheus_unit | fleetwatch.monitoring.systemd_unit }}"
    activation: reload
    ready: ["http://127.0.0.1:9090/-/ready"]
"""

RETURN = r"""
changed_files:
  description: Paths that were written or removed.
  returned: always
  type: list
  elements: str
activated:
  description: What was done to the units, such as V(reload), V(restart) or V(stop).
  returned: always
  type: dict
"""

import contextlib  # noqa: E402 - Ansible's documentation blocks come first
import fnmatch  # noqa: E402
import grp  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.urls import open_url  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import local_http  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.managed_file import (  # noqa: E402
    ManagedFile,
    NotAFileError,
    write,
)
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.systemd import (  # noqa: E402
    Systemd,
    SystemdError,
)

UNIT_DIR = Path("/etc/systemd/system")
# Marks a change that was written but not yet activated. A reboot activates it, hence /run.
PENDING_DIR = Path("/run/fleetwatch")
FILE_MODE = 0o640
DIR_MODE = 0o750
UNIT_MODE = 0o644
POLL_SECONDS = 0.2
NO_GROUP = -1
"""Stands for the group of a user that is yet to be made."""


class ActivationError(Exception):
    """The service did not take a change."""


class VerifiedService:
    """The service that the task describes."""

    def __init__(self, module: AnsibleModule) -> None:
        """Compare what the task asks for with what the host has."""
        self.module = module
        self.params: dict[str, Any] = module.params
        self.systemctl = Systemd(module)
        self.name: str = self.params["name"]
        for template in self.params["instances"]:
            if template not in self.params["units"] or "@." not in template:
                words = f"instances: {template} is no template among the units, such as worker@.service"
                module.fail_json(msg=f"{self.name}: {words}")
        self.units: list[str] = [
            instance
            for unit in self.params["units"]
            for instance in instances_of(unit, self.params["instances"].get(unit))
        ]
        self.touched: set[str] = set()
        """Units that a change has reached."""
        self.added: list[str] = []
        """Instances that did not belong to the service before."""
        self.completing = False
        """Whether an earlier change is still to be activated."""
        self.excused: list[str] = []
        """URLs that are not waited for: to put a change back, those that were not ready before it."""
        self.config_dir = Path(self.params["config_dir"] or "/nonexistent")
        self.gid = primary_group(self.params["user"])
        self.user_missing = self.gid == NO_GROUP
        self.files = self._config_files()
        self.unit_files = [
            ManagedFile(UNIT_DIR / unit, content, 0, UNIT_MODE)
            for unit, content in self.params["units"].items()
        ]
        self.pending = PENDING_DIR / f"{self.name}.pending"

    def _make_user(self) -> None:
        """Make the system user with a group of its own; systemd makes its home, the state directory."""
        user = self.params["user"]
        command = [self.module.get_bin_path("useradd", required=True), "--system", "--no-create-home"]
        command += ["--home-dir", f"/var/lib/{user}", "--shell", "/usr/sbin/nologin"]
        command += ["--gid", user] if group_exists(user) else ["--user-group"]
        code, out, err = self.module.run_command([*command, user])
        if code:
            self.module.fail_json(
                msg=f"{self.name}: cannot make the user {user}: {err.strip() or out.strip()}"
            )
        self.gid = primary_group(user)
        for file in self.files:
            file.gid = self.gid

    def _config_files(self) -> list[ManagedFile]:
        wanted = {**self.params["files"], **self.params["secrets"]}
        managed = [
            ManagedFile(
                self.config_dir / path, text, self.gid, FILE_MODE, secret=path in self.params["secrets"]
            )
            for path, text in wanted.items()
        ]
        for folder in self.params["prune"]:
            managed += [
                ManagedFile(path, None, self.gid, FILE_MODE)
                for path in sorted((self.config_dir / folder).rglob("*"))
                if path.is_file() and str(path.relative_to(self.config_dir)) not in wanted
            ]
        return managed

    def run(self) -> None:
        """Do the task and leave with Ansible's answer."""
        files = [file for file in self.files if file.changed]
        units = [file for file in self.unit_files if file.changed]
        if files or units or self.pending.exists():
            self._validate()
        masks = self._units_to_mask()
        plan = self._plan(files, units)
        changes = [*files, *units]
        changed = bool(changes or masks or plan or self.user_missing)
        if changed and not self.module.check_mode:
            if self.user_missing:
                self._make_user()
            self._mask(masks)
            self._change(files, units, plan)
        self.module.exit_json(
            changed=changed,
            changed_files=[str(file.path) for file in changes],
            activated=plan,
            diff=[file.diff for file in changes],
        )

    # Checking

    def _validate(self) -> None:
        """Run the service's own checker on the new files, before anything is changed."""
        staging = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.module.tmpdir))
        try:
            for file in self.files:
                if file.content is not None:
                    staged = staging / file.path.relative_to(self.config_dir)
                    staged.parent.mkdir(parents=True, exist_ok=True)
                    write(staged, file.content, 0, 0, 0o600)
            for command in self.params["validate"]:
                argv = [str(argument).replace("{config}", str(staging)) for argument in command]
                missing = self._not_installed_yet(argv)
                if missing:
                    self.module.warn(f"{missing} is not installed yet; the new files were not checked.")
                    continue
                code, out, err = self.module.run_command(argv)
                if code:
                    self._refuse(argv, f"{out}\n{err}".replace(f"{staging}", f"{self.config_dir}"))
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _not_installed_yet(self, argv: list[str]) -> str:
        """Return what the command needs and an earlier task of this check run would have installed."""
        if not self.module.check_mode:
            return ""
        paths = (argument.rpartition("=")[2] for argument in argv)
        return next((path for path in paths if path.startswith("/") and not Path(path).exists()), "")

    def _refuse(self, argv: list[str], words: str) -> None:
        self.module.fail_json(
            msg=(
                f"{self.name}: the new configuration was refused; nothing was changed. "
                f"{Path(argv[0]).name} says:\n{words.strip()}"
            )
        )

    # Planning

    def _plan(self, files: list[ManagedFile], units: list[ManagedFile]) -> dict[str, str]:
        """Return what is to be done to each unit: start, restart or reload."""
        relevant = any(not self._is_live(file) for file in files) or self.pending.exists()
        changed_units = {file.path.name for file in units}
        plan = {}
        for unit in self.units:
            state = self.systemctl.show(unit)
            if state.get("ActiveState") not in {"active", "reloading"}:
                plan[unit] = "start" if state.get("ActiveState") in {"inactive", None} else "restart"
                if template_of(unit) != unit and state.get("UnitFileState") != "enabled":
                    self.added.append(unit)
            elif unit.endswith(".target"):
                if state.get("UnitFileState") != "enabled":
                    plan[unit] = "enable"
            elif (
                template_of(unit) in changed_units
                or state["NeedDaemonReload"] == "yes"
                or program_replaced(state)
            ):
                plan[unit] = "restart"
            elif relevant:
                plan[unit] = self.params["activation"]
            elif state.get("UnitFileState") != "enabled":
                plan[unit] = "enable"
        return plan | dict.fromkeys(self._surplus(), "stop")

    def _surplus(self) -> list[str]:
        """Return the instances that run or are enabled, but are not wanted."""
        found: set[str] = set()
        for template in self.params["instances"]:
            pattern = template.replace("@.", "@*.")
            _, out, _ = self.systemctl("list-units", "--all", "--plain", "--no-legend", pattern)
            lines = (line.split() for line in out.splitlines())
            found |= {name for name, _, active, *_ in lines if active != "inactive"}
            found |= {path.name for path in UNIT_DIR.glob(f"*.wants/{pattern}")}
        return sorted(found - {*self.units})

    def _is_live(self, file: ManagedFile) -> bool:
        relative = str(file.path.relative_to(self.config_dir))
        return any(fnmatch.fnmatch(relative, pattern) for pattern in self.params["live"])

    def _units_to_mask(self) -> list[str]:
        return [unit for unit in self.params["mask"] if (UNIT_DIR / unit).resolve() != Path("/dev/null")]

    # Changing

    def _change(self, files: list[ManagedFile], units: list[ManagedFile], plan: dict[str, str]) -> None:
        """Write, activate and wait; put everything back when the service does not take it."""
        applied: list[ManagedFile] = []
        PENDING_DIR.mkdir(mode=0o755, exist_ok=True)
        self.completing = self.pending.exists()
        urls = [*self.params["ready"], *self.params["rolling"].values()] if plan else []
        silent = [url for url in urls if not_ready(url, self.params["certificate"])]
        if plan:
            self.pending.touch()
        try:
            self._make_folders()
            for file in [*files, *units]:
                applied.append(file)
                file.apply()
            self._activate(plan, reload_units=bool(units))
        except (ActivationError, SystemdError, OSError) as error:
            self.excused = silent
            outcome = self._put_back(applied, plan, reload_units=bool(units))
            self.module.fail_json(msg=f"{self.name}: {error}\n{outcome}")
        self.pending.unlink(missing_ok=True)

    def _put_back(self, applied: list[ManagedFile], plan: dict[str, str], *, reload_units: bool) -> str:
        """Undo a change that failed and return a sentence that says how that went."""
        files = {file.path.name for file in self.unit_files if file.before is None}
        new = [unit for unit in self.units if template_of(unit) in files]
        gone = [*new, *(unit for unit in self.added if unit not in new)]
        if gone:
            self.systemctl("disable", "--now", *gone)
        for file in reversed(applied):
            file.restore()
        if len(new) == len(self.units):
            self.systemctl("daemon-reload")
            self.pending.unlink(missing_ok=True)
            return "It had never run here, so the new files were removed again."
        if not applied:
            return "No file had been changed."
        back = {"start": "restart", "stop": "start"}
        old = {unit: plan[unit] for unit in plan if unit in self.touched and unit not in gone}
        try:
            self._activate(
                # A target is never restarted, which would restart all that it groups.
                {
                    unit: "start" if unit.endswith(".target") else back.get(verb, verb)
                    for unit, verb in old.items()
                },
                reload_units=reload_units,
            )
        except (ActivationError, SystemdError) as error:
            return f"The files from before are back, but the service is still not well: {error}"
        removed = [self.params["rolling"].get(unit) for unit in gone]
        silent = [url for url in self.excused if url not in removed]
        if silent:
            words = f"As before the change, there is no answer at {', '.join(silent)}."
            return f"The files from before are back and the service was started with them. {words}"
        if not self.completing:  # else those not reached may still run with what an earlier run left
            self.pending.unlink(missing_ok=True)
        return "The files from before are back and the service runs with them."

    def _make_folders(self) -> None:
        folders = {file.path.parent for file in self.files} | {
            self.config_dir / folder for folder in self.params["prune"]
        }
        if self.params["config_dir"]:
            folders.add(self.config_dir)
        for folder in sorted(folders):
            folder.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
            os.chown(folder, 0, self.gid)
            folder.chmod(DIR_MODE)

    def _mask(self, units: list[str]) -> None:
        if units:
            self.systemctl("disable", "--now", *units)
            self.systemctl.must("mask", *units)

    def _activate(self, plan: dict[str, str], *, reload_units: bool) -> None:
        if reload_units:
            self.systemctl.must("daemon-reload")
        if not plan:
            return
        surplus = [unit for unit, verb in plan.items() if verb == "stop"]
        if len(surplus) < len(plan):
            self.systemctl.must("enable", "--quiet", *(unit for unit in plan if unit not in surplus))
        started = [unit for unit, verb in plan.items() if verb in {"start", "restart"}]
        for unit, verb in plan.items():
            if unit in surplus:
                continue
            self.touched.add(unit)
            if unit in started:
                self.systemctl("reset-failed", unit)
                self.systemctl.must(verb, unit)
            elif verb == "reload":
                self._reload(unit)
            if verb != "enable" and unit in self.params["rolling"]:
                self._wait_ready([unit] if unit in started else [], [self.params["rolling"][unit]])
        self._wait_ready(started, self.params["ready"])
        for unit in surplus:
            self.touched.add(unit)
            self.systemctl.must("disable", "--now", "--quiet", unit)
            self.systemctl("reset-failed", unit)

    def _reload(self, unit: str) -> None:
        """Reload, and see in the service's metrics that it took the new configuration."""
        check = self.params["reload_check"]
        if not check:
            self.systemctl.must("reload", unit)
            return
        before = read_metric(check, "last_reload_success_timestamp_seconds")
        # After an earlier failure the metric says so until this reload succeeds, and tells nothing of it.
        failed_before = read_metric(check, "last_reload_successful") == 0
        self.systemctl.must("reload", unit)
        deadline = time.monotonic() + self.params["timeout"]
        while time.monotonic() < deadline:
            if not failed_before and read_metric(check, "last_reload_successful") == 0:
                raise ActivationError(f"refused the new configuration.\n{self.systemctl.log(unit)}")
            if read_metric(check, "last_reload_success_timestamp_seconds") not in {before, None}:
                return
            time.sleep(POLL_SECONDS)
        raise ActivationError(f"did not take the new configuration in time.\n{self.systemctl.log(unit)}")

    def _wait_ready(self, started: list[str], urls: list[str]) -> None:
        deadline = time.monotonic() + self.params["timeout"]
        waiting = [url for url in urls if url not in self.excused]
        reason = ""
        while True:
            for unit in started:
                self.systemctl.stays_up(unit)
            while waiting:
                reason = not_ready(waiting[0], self.params["certificate"])
                if reason:
                    break
                waiting.pop(0)
            if not waiting:
                return
            if time.monotonic() > deadline:
                unit = started[0] if started else self.units[0]
                raise ActivationError(
                    f"not ready after {self.params['timeout']} s: {reason}\n{self.systemctl.log(unit)}"
                )
            time.sleep(POLL_SECONDS)


def instances_of(unit: str, count: int | str | None) -> list[str]:
    """Return the instances 1 to ``count`` of a template unit; of another unit its name."""
    if count is None:
        return [unit]
    return [unit.replace("@.", f"@{number}.") for number in range(1, int(count) + 1)]


def template_of(unit: str) -> str:
    """Return the name of the file that describes a unit: of an instance that of its template."""
    return re.sub("@[^.]+", "@", unit)


def primary_group(user: str) -> int:
    """Return the number of a user's group, or ``NO_GROUP`` when there is no such user."""
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return NO_GROUP


def group_exists(group: str) -> bool:
    """Whether there is a group of this name."""
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def program_replaced(state: dict[str, str]) -> bool:
    """Whether the running program is no longer the one on disk, as after a package upgrade."""
    try:
        return Path(f"/proc/{state['MainPID']}/exe").readlink().name.endswith(" (deleted)")
    except (OSError, KeyError):
        return False


def read_metric(check: dict[str, str], suffix: str) -> float | None:
    """Return the value of the service's own metric ``<metric>_<suffix>``, or ``None`` when there is none."""
    with contextlib.suppress(OSError, ValueError):
        text = open_url(check["url"], timeout=5, use_proxy=False).read().decode()
        match = re.search(rf"^{re.escape(check['metric'])}_{suffix}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return float(match.group(1)) if match else None
    return None


def not_ready(url: str, certificate: str | None = None) -> str:
    """Return why ``url`` is not ready, or an empty string when it is."""
    try:
        if certificate:
            local_http.get(url, certificate=certificate)
        else:
            open_url(url, timeout=5, use_proxy=False)
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "config_dir": {"type": "path"},
            "user": {"type": "str", "required": True},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "live": {"type": "list", "elements": "str", "default": []},
            "prune": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "list", "elements": "list", "default": []},
            "units": {"type": "dict", "required": True},
            "instances": {"type": "dict", "default": {}},
            "rolling": {"type": "dict", "default": {}},
            "mask": {"type": "list", "elements": "str", "default": []},
            "activation": {"type": "str", "choices": ["reload", "restart"], "default": "restart"},
            "reload_check": {
                "type": "dict",
                "options": {
                    "url": {"type": "str", "required": True},
                    "metric": {"type": "str", "required": True},
                },
            },
            "ready": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "path"},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
        no_log=True,  # keeps the files out of the host's system log; results are still shown
    )
    try:
        VerifiedService(module).run()
    except (NotAFileError, SystemdError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")


if __name__ == "__main__":
    main()
