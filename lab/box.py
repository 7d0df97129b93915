"""``make box``: a Debian box for Vagrant and libvirt, from the package mirror that this machine uses.

No box catalogue is asked: ``mmdebstrap`` makes the tree of files, ``mke2fs`` the disk, and the boot loader is
written in front of it, so that the machine boots as any other does. The recipe is hashed into the box: it is
built again only when its recipe changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import signal
import struct
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import CACHE, apt, engine, image, preflight, prepare
from lab.console import Console, LabError, output
from lab.settings import Machines

BUILD_PACKAGES = (
    "vagrant",
    "mmdebstrap",
    "debian-archive-keyring",
    "qemu-utils",
    "e2fsprogs",
    "openssh-client",
)
"""What building takes on this machine."""

PACKAGES = (
    *image.PACKAGES,
    "e2fsprogs",
    "grub-common",
    "grub-pc-bin",
    "initramfs-tools",
    "iputils-ping",
    "kmod",
    "linux-image-cloud-amd64",
    "netbase",
    "nftables",
    "rsync",
    "systemd-resolved",
    "systemd-timesyncd",
    "udev",
)

# Work at a time of their choosing, and work at every boot that is for nothing here.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "grub-common.service",
    "systemd-binfmt.service",
)

LABEL = "fleetwatch"
"""Of the disk's file system."""

KERNEL = f"root=LABEL={LABEL} rw console=ttyS0 net.ifnames=0 mitigations=off quiet"

HOST_KEY_UNIT = "etc/systemd/system/ssh.service.d/host-key.conf"

FILES = {
    # Every machine makes its own key at its first start; other kinds would take emulation a minute.
    HOST_KEY_UNIT: image.FILES[HOST_KEY_UNIT],
    "etc/ssh/sshd_config.d/lab.conf": f"HostKey {image.HOST_KEY}\nPasswordAuthentication no\nUseDNS no\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/environment": "LANG=C.UTF-8\n",
    "etc/fstab": f"LABEL={LABEL} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "debian\n",
    "etc/machine-id": "",
    # The hypervisor gives the address, and knows the machine by its MAC. eth1 is Vagrant's to configure.
    "etc/systemd/network/20-eth0.network": (
        "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n\n"
        "[DHCPv4]\nClientIdentifier=mac\n"
    ),
    # Nothing but what a virtual machine boots from.
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\nvirtio_scsi\nvirtio_net\nahci\nsd_mod\next4\n",
    # The links of Debian's kernel packages, which follow its upgrades.
    "boot/grub/grub.cfg": f"linux /vmlinuz {KERNEL}\ninitrd /initrd.img\nboot\n",
}

GRUB = "boot/grub/i386-pc"
GRUB_MODULES = "biosdisk part_msdos ext2 normal linux configfile"

HOOKS = (
    *image.HOOKS,
    'chroot "$1" useradd --create-home --shell /bin/bash vagrant',
    'chmod 0440 "$1"/etc/sudoers.d/vagrant',
    'install -d -m 0700 "$1"/home/vagrant/.ssh',
    'install -m 0600 {key} "$1"/home/vagrant/.ssh/authorized_keys',
    'chroot "$1" chown -R vagrant:vagrant /home/vagrant',
    'chroot "$1" systemctl --quiet enable ssh systemd-networkd systemd-resolved systemd-timesyncd',
    'ln -sf ../run/systemd/resolve/stub-resolv.conf "$1"/etc/resolv.conf',
    'rm "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',  # says not to wait for the disk, which was for the building
    'chroot "$1" update-initramfs -u',
    f'mkdir -p "$1"/{GRUB}',
    f'cp "$1"/usr/lib/grub/i386-pc/*.mod "$1"/usr/lib/grub/i386-pc/*.lst "$1"/{GRUB}/',
    f"chroot \"$1\" grub-mkimage -O i386-pc -o /{GRUB}/core.img -p '(hd0,msdos1)/boot/grub' {GRUB_MODULES}",
    f'cp "$1"/usr/lib/grub/i386-pc/boot.img "$1"/{GRUB}/',
)

# Emulated unless the lab's Vagrantfile says that there is KVM. Without the line about cx16, the kernel of
# Debian 13 double-faults under emulation. This machine's cache outlives the virtual one: its disk may lag.
VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.provider :libvirt do |libvirt|
    unless ENV["LAB_VM_DRIVER"] == "kvm"
      libvirt.driver = "qemu"
      libvirt.cpu_mode = "custom"
      libvirt.cpu_model = "qemu64"
      libvirt.cpu_feature name: "cx16", policy: "disable"
    end
    libvirt.disk_bus = "virtio"
    libvirt.disk_driver cache: "unsafe"
    libvirt.graphics_type = "none"
    libvirt.video_type = "none"
  end
end
"""

DISK_GIB = 8
SECTOR = 512
START = 2048
"""First sector of the only partition; the boot loader has the room before it."""
_ENTRY = struct.Struct("<B3sB3sII")
_TABLE = 446
_NO_CYLINDERS = b"\xfe\xff\xff"
_LINUX, _ACTIVE = 0x83, 0x80

BUILD_BYTES = 3 * preflight.GIB
BOX_BYTES = int(1.5 * preflight.GIB)


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a box what it is.

    Attributes:
        base: release, sources, apt settings and trusted authorities, as for a container.

    """

    base: image.Recipe

    @property
    def name(self) -> str:
        """The box's name for Vagrant."""
        return name(self.base.release)

    @property
    def files(self) -> dict[str, str]:
        """Path in the box, without its first slash, and content of the files that are added."""
        inherited = {path: text for path, text in self.base.files.items() if path not in image.FILES}
        return {**inherited, **FILES}

    @property
    def digest(self) -> str:
        """Changes when anything in the recipe does."""
        base = [self.base.release, self.base.sources]
        parts = [base, PACKAGES, MASKED, self.files, HOOKS, VAGRANTFILE, DISK_GIB]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def name(release: str) -> str:
    """Return the name of the box of a release."""
    return f"fleetwatch/{release}"


def recipe(release: str) -> Recipe:
    """Return the recipe of a release on this machine.

    Raises:
        LabError: no such release, or this machine's apt sources name no Debian archive.

    """
    return Recipe(image.recipe(release))


def directory(box: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where Vagrant keeps a box, there or not."""
    home = environment.get("VAGRANT_HOME") or str(Path("~/.vagrant.d").expanduser())
    return Path(home) / "boxes" / box.replace("/", "-VAGRANTSLASH-")


def present(box: str, provider: str = "libvirt", environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether Vagrant has a box, of any version."""
    return any(directory(box, environment).glob(f"**/{provider}/metadata.json"))


def digests(box: str, environment: Mapping[str, str] = os.environ) -> set[str]:
    """Return the recipes by which the boxes of a name were made."""
    found = directory(box, environment).glob("**/libvirt/info.json")
    return {json.loads(path.read_text(encoding="utf-8")).get("recipe", "") for path in found}


def ensure(release: str, console: Console) -> bool:
    """Make the box of a release present, made by today's recipe.

    Boxes of earlier recipes go, unless a machine was made from them.

    Returns:
        Whether it was built.

    Raises:
        LabError: it cannot be built.

    """
    made = recipe(release)
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"box-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.digest in digests(made.name):
            return False
        if problem := machine_problem():
            raise LabError(problem)
        with console.phase(f"Box: {made.name}, Debian from {made.base.sources[0].split()[1]}"):
            _build(made, console)
    return True


def machine_problem(machine: str = platform.machine()) -> str | None:
    """Tell whether boxes can be built for this kind of machine."""
    if machine == "x86_64":
        return None
    return f"make box builds for x86_64 only, and this machine is {machine}: give a box with LAB_BOX"


def _build(made: Recipe, console: Console) -> None:
    with tempfile.TemporaryDirectory(dir=image.BUILD) as path:
        work = Path(path)
        work.chmod(0o755)  # apt, which drops its rights, reads the hook's files through here
        tree, disk = work / "tree", work / "disk.raw"
        try:
            _make_tree(made, work, tree, console)
            _make_disk(tree, disk, console)
        finally:
            output(engine.as_root(["rm", "-rf", "--one-file-system", tree]))  # its files are root's
        convert: list[str | Path] = ["qemu-img", "convert", "-O", "qcow2", disk, work / "box.img"]
        console.run(convert, log="box")
        _add(made, work, console)


def _make_tree(made: Recipe, work: Path, tree: Path, console: Console) -> None:
    overlay, key = work / "overlay.tar", work / "key.pub"
    overlay.write_bytes(image.pack(made.files, MASKED))
    key.write_text(insecure_key(), encoding="utf-8")
    command: list[str | Path] = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={setting}" for setting in made.base.settings),
        "--dpkgopt=force-unsafe-io",
        "--skip=cleanup/apt",
        *(f"--customize-hook={hook.format(overlay=overlay, key=key)}" for hook in HOOKS),
        made.base.release,
        tree,
        *made.base.sources,
    ]
    console.run(engine.as_root(command, TMPDIR=str(work)), log="box", watcher=image.Steps())


def insecure_key() -> str:
    """Return the public half of Vagrant's own key pair, which everybody has.

    Vagrant puts another one in its place when a machine starts for the first time.
    """
    output(["vagrant", "box", "list"], cwd=image.BUILD)  # makes Vagrant's home, with the key
    private = directory("").parent / "insecure_private_key"
    return output(["ssh-keygen", "-y", "-f", private])


def _make_disk(tree: Path, disk: Path, console: Console) -> None:
    """Make a disk with a boot loader and the tree on one partition."""
    size = DISK_GIB * preflight.GIB
    with disk.open("wb") as file:
        file.truncate(size)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", LABEL, "-d", str(tree)]
    # GRUB of Debian 12 cannot read newer features.
    command += ["-O", "^metadata_csum_seed,^orphan_file", "-E", f"offset={START * SECTOR}"]
    command += [str(disk), f"{(size - START * SECTOR) // 1024}k"]
    console.run(engine.as_root(command), log="box")
    boot, core = [(tree / GRUB / part).read_bytes() for part in ("boot.img", "core.img")]
    with disk.open("r+b") as file:
        file.write(boot_record(boot, core, size // SECTOR))


def boot_record(boot: bytes, core: bytes, sectors: int) -> bytes:
    """Return what stands before the first partition: the boot sector with the partition table, then GRUB.

    GRUB's own images look for one another exactly there; ``grub-install`` would need the disk as a device.

    Args:
        boot: GRUB's ``boot.img``.
        core: GRUB's ``core.img``, as ``grub-mkimage`` makes it.
        sectors: of the disk.

    Raises:
        LabError: there is no room for it.

    """
    if len(core) > (START - 1) * SECTOR:
        raise LabError(f"GRUB has {len(core)} bytes: too many to stand before the first partition")
    entry = _ENTRY.pack(_ACTIVE, _NO_CYLINDERS, _LINUX, _NO_CYLINDERS, START, sectors - START)
    table = entry + bytes(3 * _ENTRY.size)
    return boot[:_TABLE] + table + b"\x55\xaa" + core


def _add(made: Recipe, work: Path, console: Console) -> None:
    """Pack the box and give it to Vagrant."""
    files = {
        "metadata.json": json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIB}),
        "info.json": json.dumps({"recipe": made.digest, "sources": made.base.sources}),
        "Vagrantfile": VAGRANTFILE,
    }
    for path, text in files.items():
        (work / path).write_text(text + "\n", encoding="utf-8")
    archive = work / "fleetwatch.box"
    with tarfile.open(archive, "w") as tar:
        for path in (*files, "box.img"):
            tar.add(work / path, path)
    # With a version of its own, or libvirt would go on with the disk of an earlier box of that name.
    catalogue = work / "catalogue.json"
    providers = [{"name": "libvirt", "url": archive.as_uri()}]
    version = time.strftime("%Y%m%d.%H%M%S")
    versions = [{"version": version, "providers": providers}]
    catalogue.write_text(json.dumps({"name": made.name, "versions": versions}), encoding="utf-8")
    console.run(["vagrant", "box", "add", "--provider", "libvirt", catalogue], log="box", cwd=work)
    prune = ["vagrant", "box", "prune", "--force", "--keep-active-boxes", "--name", made.name]
    console.run(prune, log="box", cwd=work)


def check(release: str) -> list[str]:
    """Check everything that can be checked without changing anything; return the Debian packages to install.

    Raises:
        prepare.ProblemsError: something stands in the way.

    """
    for problem in (
        preflight.platform_problem(),
        machine_problem(),
        preflight.root_problem(),
    ):
        if problem:
            raise prepare.ProblemsError([problem])
    missing = apt.missing(BUILD_PACKAGES)
    needed = {image.BUILD: BUILD_BYTES, directory(name(release)): BOX_BYTES}
    offline = preflight.mirror_problem() or (preflight.package_problem(missing) if missing else None)
    if problems := [*preflight.disk_problems(needed), *filter(None, [offline])]:
        raise prepare.ProblemsError(problems)
    return missing


def main() -> int:
    """Run the command line."""
    os.umask(0o022)
    # Ended from outside, it cleans up as after an interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(CACHE / "log")
    try:
        release = Machines.load(os.environ).release
        if recipe(release).digest not in digests(name(release)):
            prepare.install(check(release), console)
        built = ensure(release, console)
    except LabError as error:
        console.say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted.")
        return 130
    console.say(f"The box {name(release)} is {'ready' if built else 'there already'}. Next: make lab-vagrant")
    return 0


if __name__ == "__main__":
    sys.exit(main())
