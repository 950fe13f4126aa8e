"""From a start request and facts about the host to the operations of a sandbox. Pure: no I/O, no clock.

The order is the point, and it is asserted without root. The first half needs no image, and is all that a start
needs before it is known what starts:

(1) leave the launcher behind, (2) cut off the mounts, (3) mount what the kernel provides, on a scaffold, (4) join the
cgroups and show them, (5) cover and protect kernel files;

(6) attach the root, (7) move those mounts into it, and show the container's own files, (8) mount what the request
asks for, (9) change the root, (10) name the host, (11) wait for the word, (12) close all descriptors but five,
(13) enter the working directory, (14) bounds, privileges and the filter, (15) execute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtime.linux import constants as c
from runtime.linux.capabilities import mask
from runtime.linux.cgroups import V1_CONTROLLERS, Hierarchies, Limits
from runtime.linux.devices import DEFAULT_RULES
from runtime.linux.mounts import Options
from runtime.model import CPU_PERIOD, StartRequest
from runtime.mountops import (
    SILENT,
    AttachBind,
    DeviceNodes,
    HostFiles,
    MaskPaths,
    MountCgroups,
    MountKernelFiles,
    MountTmpfs,
    MoveIn,
    PivotRoot,
    PrivateMounts,
    ReadOnlyPaths,
    ReadOnlyRoot,
    Scaffold,
    WritableRoot,
)
from runtime.ops import (
    AwaitCgroup,
    AwaitWord,
    Bounds,
    DropPrivileges,
    EnterFolder,
    Execute,
    Isolate,
    KeepDescriptors,
    Loopback,
    Names,
    Operation,
)

NAMESPACES: Final = c.CLONE_NEWNS | c.CLONE_NEWUTS | c.CLONE_NEWIPC | c.CLONE_NEWPID
"""Made with the first process; the network is added unless it is the host's, cgroup comes after the attach."""

MASKED: Final = (
    *(("proc", name) for name in ("asound", "acpi", "interrupts", "kcore", "keys", "latency_stats")),
    *(("proc", name) for name in ("timer_list", "timer_stats", "sched_debug", "scsi")),
    *(("sys", name) for name in ("firmware", "fs/selinux", "dev/block", "devices/virtual/powercap")),
)
"""What docker and podman cover (moby oci/defaults, containers/common), all of both lists."""
READ_ONLY: Final = tuple(("proc", name) for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"))

_NODES: Final = (
    *(("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8)),
    *(("urandom", 1, 9), ("tty", 5, 0)),
)
_LINKS: Final = (
    *(("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")),
    *(("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a plan has to know of the host."""

    hierarchies: Hierarchies
    last_capability: int
    scaffold_point: str
    """Three empty folders of ours: to build on, and to attach the container's root and its small files on."""
    root_point: str
    files_point: str
    masked: tuple[tuple[str, str], ...] = ()
    """More to cover, e.g. the thermal state of each processor."""
    resolv_conf: bytes = b""
    reaper: str = ""
    """The name of the static reaper, if the request asks for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything about a start that is decided before it begins."""

    namespaces: int
    limits: Limits
    operations: tuple[Operation, ...]
    prepared: int
    """So many of the operations, the first ones, are the same for every request (`preparation`)."""

    def describe(self) -> tuple[str, ...]:
        """One line an operation."""
        return tuple(operation.describe() for operation in self.operations)


def preparation(host: HostFacts, *, own_network: bool) -> tuple[Operation, ...]:
    """The operations that need no request: the first half of each plan."""
    return (
        Isolate(),  # (1)
        PrivateMounts(),  # (2)
        *_kernel_mounts(host),  # (3)
        *((Loopback(),) if own_network else ()),
        AwaitCgroup(),  # (4)
        _cgroup_mounts(host.hierarchies),
        MaskPaths(MASKED + host.masked),  # (5)
        ReadOnlyPaths(READ_ONLY),
    )


def namespaces(*, own_network: bool) -> int:
    """CLONE_* flags of the first process."""
    return NAMESPACES | (c.CLONE_NEWNET if own_network else 0)


def plan(request: StartRequest, host: HostFacts, seccomp: bytes) -> Plan:
    """The plan for `request` on `host`, with this compiled filter."""
    own_network = request.network == "none"
    before = preparation(host, own_network=own_network)
    return Plan(
        namespaces=namespaces(own_network=own_network),
        limits=Limits(
            memory=request.memory,
            pids=request.pids,
            cpu=request.cpu,
            cpu_period=CPU_PERIOD,
            devices=DEFAULT_RULES,
        ),
        prepared=len(before),
        operations=(
            *before,
            _root(request, host),  # (6)
            MoveIn(("proc", "sys", "dev")),  # (7)
            _host_files(request, host),
            *_asked_mounts(request),  # (8)
            PivotRoot(),  # (9)
            Names(_hostname(request)),  # (10)
            AwaitWord(),  # (11)
            KeepDescriptors(trampoline=not host.reaper),  # (12)
            EnterFolder(path=request.process.cwd, create=request.root.writable),  # (13)
            *_confinement(request, host, seccomp),  # (14)
            Execute(argv=request.process.argv, env=request.process.env, reaper=host.reaper),  # (15)
        ),
    )


def root_attributes(request: StartRequest) -> int:
    """Of the image's mount: its device nodes are never devices, and set-user-ID works only with new privileges."""
    return c.MOUNT_ATTR_NODEV | (c.MOUNT_ATTR_NOSUID if request.process.no_new_privs else 0)


def bind_attributes(request: StartRequest) -> tuple[int, ...]:
    """Of each bind's mount."""
    return tuple(
        (c.MOUNT_ATTR_RDONLY if bind.read_only else 0)
        | (c.MOUNT_ATTR_NOSUID if bind.nosuid else 0)
        | (c.MOUNT_ATTR_NODEV if bind.nodev else 0)
        | (c.MOUNT_ATTR_NOEXEC if bind.noexec else 0)
        for bind in request.mounts
    )


def _hostname(request: StartRequest) -> str:
    return request.hostname or str(request.name)


def _root(request: StartRequest, host: HostFacts) -> Operation:
    if not request.root.writable:
        return ReadOnlyRoot(host.root_point)
    return WritableRoot(host.root_point, root_attributes(request), request.root.upper_max)


def _kernel_mounts(host: HostFacts) -> tuple[Operation, ...]:
    terminals: Options = (("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"), ("newinstance", None))
    devices: Options = (("mode", "0755"), ("size", "64k"))
    shared: Options = (("mode", "1777"), ("size", "64m"))
    quiet = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NOEXEC
    return (
        Scaffold(host.scaffold_point, ("proc", "sys", "dev")),
        MountKernelFiles("proc", "proc", "scaffold", "proc", (), SILENT),
        MountKernelFiles("sys", "sysfs", "scaffold", "sys", (), SILENT | c.MOUNT_ATTR_RDONLY),
        MountKernelFiles("dev", "tmpfs", "scaffold", "dev", devices, c.MOUNT_ATTR_NOSUID),
        DeviceNodes(nodes=_NODES, folders=("pts", "shm", "mqueue"), links=_LINKS),
        MountKernelFiles("pts", "devpts", "dev", "pts", terminals, quiet),
        MountKernelFiles("shm", "tmpfs", "dev", "shm", shared, SILENT),
        MountKernelFiles("mqueue", "mqueue", "dev", "mqueue", (), SILENT),
    )


def _host_files(request: StartRequest, host: HostFacts) -> Operation:
    name = _hostname(request)
    hosts = f"127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    resolv_conf = host.resolv_conf if request.network == "host" else b""
    files = (("etc/hosts", hosts.encode()), ("etc/hostname", f"{name}\n".encode()), ("etc/resolv.conf", resolv_conf))
    return HostFiles(host.files_point, files)


def _asked_mounts(request: StartRequest) -> tuple[Operation, ...]:
    """Shallow targets first, so that one may lie inside another."""
    create = request.root.writable
    asked: list[tuple[str, Operation]] = [(mount.target, MountTmpfs(mount, create)) for mount in request.tmpfs]
    asked += [(bind.target, AttachBind(number, bind, create)) for number, bind in enumerate(request.mounts)]
    return tuple(operation for _, operation in sorted(asked, key=lambda pair: pair[0].rstrip("/").count("/")))


def _cgroup_mounts(hierarchies: Hierarchies) -> Operation:
    points = dict.fromkeys(hierarchies.v1[name] for name in V1_CONTROLLERS if name in hierarchies.v1)
    v1 = tuple(tuple(name for name in V1_CONTROLLERS if hierarchies.v1.get(name) == point) for point in points)
    return MountCgroups(v1=v1, v2=hierarchies.v2 is not None)


def _confinement(request: StartRequest, host: HostFacts, seccomp: bytes) -> tuple[Operation, ...]:
    process = request.process
    return (
        Bounds(process.rlimits, process.umask),
        DropPrivileges(
            uid=process.uid,
            gid=process.gid,
            groups=process.groups,
            bounding=mask(process.capabilities),
            ambient=mask(process.ambient),
            last_capability=host.last_capability,
            no_new_privs=process.no_new_privs,
            filter=seccomp,
        ),
    )
