"""What the operator wants: one TOML file, strictly validated, with a default for everything."""

import dataclasses
import difflib
import ipaddress
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from agent.errors import KatanodeError
from agent.reasons import Reason

DEFAULT_PATH = "/etc/katanode/katanode.toml"
"""Where the settings are looked for when no other place is named; a missing file there means all defaults."""

LEASE_LIMIT = 3600
"""Seconds that a restart slot may stay with a node that vanished."""

UPSTREAM = "https://github.com/kata-containers/kata-containers/releases/download"


@dataclass(frozen=True, slots=True)
class Kata:
    """`[kata]`: which release, from where, and which handlers of it.

    Attributes:
        version: a release with a pin, shipped or given below.
        runtime: `go`, `rust`, or `auto`: Go as long as the main archive holds it (up to 4.0.0), else Rust.
        handlers: the runtime handlers that pods may name.
        source: https address of the folder of the release's archives (`{version}` is replaced), or an absolute path of
            a folder, or of the one archive.
        sha256: further pins: file name to digest.
        ca_file: PEM file of an own certificate authority for the source.
        max_unpacked_bytes: bound of an unpacked release in bytes; 4.1.0's both archives have about 6 GB.
        keep: releases kept besides the current one, for `katanode rollback`.
    """

    version: str = "4.1.0"
    runtime: Literal["auto", "go", "rust"] = "auto"
    handlers: tuple[str, ...] = ("kata-clh", "kata-qemu")
    source: str = UPSTREAM + "/{version}"
    sha256: Mapping[str, str] = field(default_factory=dict)
    ca_file: str = ""
    max_unpacked_bytes: int = 16 << 30
    keep: int = 1


@dataclass(frozen=True, slots=True)
class Handler:
    """`[handlers.NAME]`: the tunables of one handler, in the shape of Kata's own configuration.

    Attributes:
        hypervisor: `[handlers.NAME.hypervisor.clh]` and so on: Kata's `[hypervisor.clh]`.
        agent: `[handlers.NAME.agent.kata]`: Kata's `[agent.kata]`.
        runtime: `[handlers.NAME.runtime]`: Kata's `[runtime]`.
        annotations: which `io.katacontainers.config.hypervisor.*` annotations pods may use (`default_vcpus`, …); when
            not given, those of the release's own list.
    """

    hypervisor: Mapping[str, Any] = field(default_factory=dict)
    agent: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """`[node]`: preparing the node.

    Attributes:
        modules: load the kernel modules that Kata uses and have them loaded at every boot.
        sysctls: raise the sysctls below.
        sysctl: key to the least value that the node shall have; a higher one is left alone.
    """

    modules: bool = True
    sysctls: bool = True
    sysctl: Mapping[str, int] = field(
        default_factory=lambda: {
            "fs.inotify.max_user_instances": 8192,
            "fs.inotify.max_user_watches": 524288,
            "net.core.somaxconn": 32768,
            "net.ipv4.tcp_max_syn_backlog": 8192,
            "vm.max_map_count": 262144,
        }
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """`[runtime]`: the container runtime.

    Attributes:
        socket: its CRI socket; empty means that the known places are asked.
        restart_command: how it is restarted when no systemd unit runs it.
        restart_timeout_seconds: bound for the restart until CRI is ready again.
        quiet_timeout_seconds: how long a restart waits for sandboxes that are being created.
        cooldown_seconds: how long a change that failed is not tried again.
    """

    socket: str = ""
    restart_command: tuple[str, ...] = ()
    restart_timeout_seconds: int = 60
    quiet_timeout_seconds: int = 30
    cooldown_seconds: int = 600


@dataclass(frozen=True, slots=True)
class Canary:
    """`[canary]`: the sandbox that proves a handler.

    Attributes:
        timeout_seconds: bound for its start and for its removal, each.
        interval_seconds: how often the daemon starts one again through every handler that is proved, with a tenth of
            jitter; 0 for only after changes.
    """

    timeout_seconds: int = 60
    interval_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class Run:
    """`[run]`: the daemon, `katanode run`.

    Attributes:
        interval_seconds: how often the node is looked at whole, with a tenth of jitter; changes of the settings, of the
            runtime's configuration and of what katanode installed are seen within some seconds anyway.
    """

    interval_seconds: int = 300


@dataclass(frozen=True, slots=True)
class Rollout:
    """`[rollout]`: how many nodes restart their container runtime at once.

    Attributes:
        slots: restart slots of the fleet: so many nodes at a time.
        lease_seconds: how long a slot stays with a node that vanished while it held it.
        failed_nodes_limit: after so many nodes whose restart failed with these settings no further slot is given.
    """

    slots: int = 1
    lease_seconds: int = 120
    failed_nodes_limit: int = 3


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """`[sandboxes]`: watching the sandboxes that run.

    Attributes:
        metrics: say in the metrics what each sandbox uses.
        series_limit: series of sandboxes in a scrape at most; the youngest sandboxes are left out beyond it, and
            `katanode_sandbox_series_dropped_total` counts what was.
        memory_interval_seconds: how often the memory of each is measured so that nothing counts twice, which is costly.
    """

    metrics: bool = True
    series_limit: int = 5000
    memory_interval_seconds: int = 300


@dataclass(frozen=True, slots=True)
class Serve:
    """`[serve]`: metrics, health and the page for people.

    Attributes:
        address: the address to listen on; the kubelet's probes come from the node itself to 127.0.0.1.
        port: the port; 0 serves nothing.
        tls_cert_file: PEM file of a certificate chain; with it everything is served over TLS.
        tls_key_file: PEM file of its key.
    """

    address: str = "0.0.0.0"  # noqa: S104 - Prometheus comes from another node
    port: int = 9810
    tls_cert_file: str = ""
    tls_key_file: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file."""

    state: Literal["present", "absent"] = "present"
    kata: Kata = field(default_factory=Kata)
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    node: Node = field(default_factory=Node)
    runtime: Runtime = field(default_factory=Runtime)
    canary: Canary = field(default_factory=Canary)
    run: Run = field(default_factory=Run)
    rollout: Rollout = field(default_factory=Rollout)
    sandboxes: Sandboxes = field(default_factory=Sandboxes)
    serve: Serve = field(default_factory=Serve)


def load(path: Path, *, required: bool) -> Settings:
    """Reads and validates a settings file.

    Args:
        path: where it is.
        required: whether its absence is an error; if not, it means all defaults.

    Raises:
        KatanodeError: `SETTINGS_INVALID`, with the key's path or the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if not required:
            return Settings()
        raise _invalid(f"{path} does not exist") from None
    except OSError as error:
        raise _invalid(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(data.decode())
    except UnicodeDecodeError as error:
        raise _invalid(f"{path} is not UTF-8 text (byte {error.start})") from None
    except KatanodeError as error:
        raise KatanodeError(error.reason, f"{path}: {error.message}", remedy=error.remedy) from None


def parse(text: str) -> Settings:
    """Validates settings given as TOML text.

    Raises:
        KatanodeError: `SETTINGS_INVALID`.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _invalid(f"not valid TOML: {error}") from error
    settings: Settings = _build(Settings, document, "")
    _check(settings)
    return settings


def from_json(value: object) -> Settings:
    """Settings out of what `as_json` made of them.

    Raises:
        KatanodeError: `SETTINGS_INVALID`: they were kept by a version that knew other keys.
    """
    settings: Settings = _build(Settings, value, "")
    _check(settings)
    return settings


def as_json(settings: Settings) -> dict[str, Any]:
    """Settings in the shape of the file, every key given but those that stand for "not given"."""
    made: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), default=dict))
    return {key: _without_null(value) for key, value in made.items()}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value


def _check(settings: Settings) -> None:
    """The rules that go beyond types."""
    _check_kata(settings.kata)
    for name in settings.handlers:
        if name not in settings.kata.handlers:
            near = _nearest(name, settings.kata.handlers)
            raise _invalid(f"handlers.{name} has tunables, but kata.handlers does not name it{near}")
    for key, least in (
        ("kata.max_unpacked_bytes", 1 << 20),
        ("kata.keep", 0),
        ("runtime.restart_timeout_seconds", 1),
        ("runtime.quiet_timeout_seconds", 0),
        ("runtime.cooldown_seconds", 0),
        ("canary.timeout_seconds", 1),
        ("canary.interval_seconds", 0),
        ("run.interval_seconds", 10),
        ("rollout.slots", 1),
        ("rollout.lease_seconds", 15),
        ("rollout.failed_nodes_limit", 1),
        ("sandboxes.series_limit", 0),
        ("sandboxes.memory_interval_seconds", 10),
        ("serve.port", 0),
    ):
        section, name = key.split(".")
        if getattr(getattr(settings, section), name) < least:
            raise _invalid(f"{key} is below {least}")
    _check_canary(settings.canary)
    if settings.rollout.lease_seconds > LEASE_LIMIT:
        raise _invalid(f"rollout.lease_seconds is above {LEASE_LIMIT}: the admission policy refuses longer leases")
    _check_serve(settings.serve)
    for key, value in settings.node.sysctl.items():
        if value < 0 or not all(part.replace("_", "").replace("-", "").isalnum() for part in key.split(".")):
            raise _invalid(f"node.sysctl.{key!r} = {value} is not a sysctl with a number of 0 or more")
    for key, path in (("kata.ca_file", settings.kata.ca_file), ("runtime.socket", settings.runtime.socket)):
        if path and not PurePosixPath(path).is_absolute():
            raise _invalid(f"{key} {path!r} is not an absolute path")


def _check_canary(canary: Canary) -> None:
    if 0 < canary.interval_seconds < 10:
        raise _invalid("canary.interval_seconds is below 10, and not 0 for only after changes")


def _check_serve(serve: Serve) -> None:
    if serve.port > 65535:
        raise _invalid(f"serve.port {serve.port} is above 65535")
    try:
        ipaddress.ip_address(serve.address)
    except ValueError:
        raise _invalid(f"serve.address {serve.address!r} is not an IP address such as 0.0.0.0 or ::") from None
    if bool(serve.tls_cert_file) != bool(serve.tls_key_file):
        raise _invalid("serve.tls_cert_file and serve.tls_key_file are wanted both or not at all")


def _check_kata(kata: Kata) -> None:
    if not kata.handlers:
        raise _invalid("kata.handlers is empty: name at least one, for instance kata-clh")
    if len(set(kata.handlers)) != len(kata.handlers):
        raise _invalid("kata.handlers names a handler twice")
    if not kata.version or set(kata.version) - set("0123456789abcdefghijklmnopqrstuvwxyz.-"):
        raise _invalid(f"kata.version {kata.version!r} is not a version such as 4.1.0")
    if "://" in kata.source and not kata.source.startswith("https://"):
        raise _invalid(f"kata.source {kata.source!r} is not https: only https, a file or a folder is accepted")
    if "://" not in kata.source and not PurePosixPath(kata.source).is_absolute():
        raise _invalid(f"kata.source {kata.source!r} is neither an https address nor an absolute path")
    for name, digest in kata.sha256.items():
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise _invalid(f"kata.sha256.{name!r} is not a sha256 in 64 lowercase hexadecimal digits")


def _build(kind: type[Any], value: object, path: str) -> Any:
    """Makes a value of the annotated type `kind` from TOML, or says which key is wrong and how it should be."""
    if dataclasses.is_dataclass(kind):
        table = _expect(dict, value, path, "a table")
        hints = typing.get_type_hints(kind)
        for key in table:
            if key not in hints:
                raise _invalid(f"unknown key {_join(path, key)}{_nearest(key, hints)}")
        return kind(**{key: _build(hints[key], item, _join(path, key)) for key, item in table.items()})
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise _invalid(f"{path} = {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is types.UnionType:  # only "T | None" occurs, and TOML has no null
        return _build(arguments[0], value, path)
    if origin is tuple:
        items = _expect(list, value, path, "an array")
        return tuple(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is Mapping:
        table = _expect(dict, value, path, "a table")
        if arguments[1] is Any:
            return table
        return {key: _build(arguments[1], item, _join(path, key)) for key, item in table.items()}
    names = {str: "a string", int: "a whole number", bool: "true or false"}
    return _expect(kind, value, path, names[kind])


def _expect(kind: type[Any], value: object, path: str, words: str) -> Any:
    if type(value) is not kind:  # exactly: in Python True is an int
        raise _invalid(f"{path} = {value!r} is not {words}")
    return value


def _join(path: str, key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return ".".join(filter(None, (path, key if bare else repr(key))))


def _nearest(key: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(sorted(known))})"


def _invalid(message: str) -> KatanodeError:
    return KatanodeError(Reason.SETTINGS_INVALID, message)
