"""Tunables are checked against the release's own base file, and every wrong one is told with the right one."""

import tomllib
from pathlib import Path

import pytest

from agent.errors import KatanodeError
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.kata import basefile, render, tunables
from agent.kata.basefile import BaseFile
from agent.kata.handlers import HANDLERS, SHIMS, Flavour, ResolvedHandler, resolve
from agent.reasons import Reason
from agent.settings import Handler

RELEASE = "/opt/katanode/releases/x"

ARTICLE = {
    "hypervisor": {
        "clh": {
            "path": "/opt/kata/bin/cloud-hypervisor",
            "kernel": "/opt/kata/share/kata-containers/vmlinux.container",
            "initrd": "/opt/kata/share/kata-containers/kata-containers-initrd.img",
            "default_vcpus": 2,
            "default_maxvcpus": 4,
            "default_memory": 2048,
            "default_maxmemory": 8192,
            "machine_type": "q35",
            "enable_iommu": True,
            "enable_iommu_platform": True,
            "shared_fs": "virtio-fs",
            "virtio_fs_daemon": "/opt/kata/libexec/virtiofsd",
            "virtio_fs_cache": "auto",
            "virtio_fs_cache_size": 0,
            "enable_debug": False,
            "kernel_params": "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service"
            " systemd.mask=systemd-networkd.socket",
            "block_device_driver": "virtio-blk-pci",
            "disable_block_device_use": False,
            "disable_vhost_net": False,
        }
    },
    "agent": {"kata": {"enable_tracing": False, "kernel_modules": []}},
    "runtime": {
        "name": "kata-clh",
        "enable_debug": False,
        "internetworking_model": "tcfilter",
        "disable_guest_seccomp": False,
        "disable_guest_selinux": True,
        "sandbox_cgroup_only": False,
        "static_sandbox_resource_mgmt": False,
    },
}
"""What the hand procedure tells people to write, in the settings' shape."""


@pytest.fixture
def root(tmp_path: Path) -> HostRoot:
    """A node whose release has the files that paths name."""
    for name in (
        "bin/cloud-hypervisor",
        "bin/qemu-system-x86_64",
        "libexec/virtiofsd",
        "bin/firecracker",
        "bin/jailer",
    ):
        (tmp_path / RELEASE[1:] / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / RELEASE[1:] / name).touch()
    images = tmp_path / RELEASE[1:] / "share/kata-containers"
    images.mkdir(parents=True)
    for name in ("vmlinux.container", "vmlinuz.container", "kata-containers.img", "kata-containers-initrd.img"):
        (images / name).touch()
    return HostRoot(tmp_path)


def base_of(shared: Path, version: str, name: str, runtime: Flavour) -> BaseFile:
    kind = HANDLERS[name]
    folder = shared / "kata-configs" / version
    found = [folder / candidate for candidate in kind.base_files[runtime] if (folder / candidate).exists()]
    if not found:
        pytest.skip(reason=f"{version} has no base file of {name} for {runtime}")
    handler = ResolvedHandler(kind, runtime, str(found[0]), f"{RELEASE}/{SHIMS[runtime]}", RELEASE, version)
    return basefile.parse(handler, found[0].read_bytes())


def problems(base: BaseFile, root: HostRoot, wanted: Handler) -> dict[str, str]:
    """The refused places, each with its advice."""
    with pytest.raises(KatanodeError) as caught:
        tunables.check(base, wanted, root)
    assert caught.value.reason in {Reason.TUNABLE_UNKNOWN, Reason.TUNABLE_WRONG_TYPE, Reason.TUNABLE_WRONG_VALUE}
    pairs = (line.partition(": ") for line in caught.value.evidence.splitlines())
    return {place.partition(" = ")[0].removeprefix("handlers.kata-clh."): advice for place, _, advice in pairs}


EVERY: list[tuple[str, str, Flavour]] = [
    ("3.2.0", "kata-clh", "go"),
    ("3.2.0", "kata-qemu", "go"),
    ("3.2.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "go"),
    ("4.1.0", "kata-qemu", "go"),
    ("4.1.0", "kata-fc", "go"),
    ("4.1.0", "kata-clh", "rust"),
    ("4.1.0", "kata-qemu", "rust"),
    ("4.1.0", "kata-dragonball", "rust"),
]


@pytest.mark.parametrize(("version", "name", "runtime"), EVERY)
def test_every_base_file_is_rendered_into_the_pinned_release(
    shared: Path, version: str, name: str, runtime: Flavour, root: HostRoot
) -> None:
    base = base_of(shared, version, name, runtime)
    rendered = render.render(base, tunables.check(base, Handler(), root))
    assert rendered[render.BASE] == base.data
    assert not [line for line in str(render.effective(rendered)).split("'") if line.startswith("/opt/kata/")]
    for drop_in in set(rendered) - {render.BASE}:
        for table, keys in _tables(tomllib.loads(rendered[drop_in].decode())):
            for key in keys:
                assert base.value(table, key) is not None, (
                    f"{table}.{key} is not in the base file: fatal to the Go runtime"
                )


def _tables(tree: dict[str, object], name: str = "") -> list[tuple[str, list[str]]]:
    found = [(name, [key for key, item in tree.items() if not isinstance(item, dict)])]
    for key, item in tree.items():
        if isinstance(item, dict):
            found += _tables(item, f"{name}.{key}".lstrip("."))
    return found


def test_the_articles_configuration_is_refused_line_by_line_on_the_go_runtime(shared: Path, root: HostRoot) -> None:
    told = problems(base_of(shared, "3.2.0", "kata-clh", "go"), root, Handler(**ARTICLE))
    assert set(told) == {
        "hypervisor.clh.block_device_driver",
        "hypervisor.clh.disable_vhost_net",
        "hypervisor.clh.enable_iommu_platform",
        "hypervisor.clh.machine_type",
        "runtime.disable_guest_selinux",
        "runtime.name",
    } | ({"hypervisor.clh.enable_iommu"} & set(told))
    assert '"virtio-blk"' in told["hypervisor.clh.block_device_driver"]
    assert "[handlers.kata-clh.hypervisor.clh]" in told["runtime.disable_guest_selinux"]


def test_the_articles_configuration_is_refused_line_by_line_on_the_rust_runtime(shared: Path, root: HostRoot) -> None:
    told = problems(base_of(shared, "4.1.0", "kata-clh", "rust"), root, Handler(**ARTICLE))
    assert "virtio_container" in told["runtime.name"] or "virt_container" in told["runtime.name"]
    assert "hypervisor.clh.block_device_driver" not in told, "virtio-blk-pci is right there"
    for right in ("default_vcpus", "default_memory", "shared_fs", "virtio_fs_cache", "initrd", "path"):
        assert f"hypervisor.clh.{right}" not in told


@pytest.mark.parametrize(
    ("tables", "place", "advice"),
    [
        ({"clh": {"default_memroy": 1}}, "hypervisor.clh.default_memroy", "did you mean default_memory?"),
        ({"clh": {"default_vcpus": "2"}}, "hypervisor.clh.default_vcpus", "write default_vcpus = 2"),
        ({"clh": {"enable_debug": 1}}, "hypervisor.clh.enable_debug", "true or false"),
        ({"clh": {"default_memory": -1}}, "hypervisor.clh.default_memory", ""),
        ({"clh": {"shared_fs": "virtio-9p"}}, "hypervisor.clh.shared_fs", "virtio-fs"),
        ({"clh": {"kernel": "/nowhere"}}, "hypervisor.clh.kernel", "is no file of this node"),
        ({"clh": {"kernel": "vmlinux"}}, "hypervisor.clh.kernel", "not an absolute path"),
        ({"qemu": {"default_memory": 1}}, "hypervisor.qemu", "[handlers.kata-clh.hypervisor.clh]"),
        ({"default_memory": 512}, "hypervisor.default_memory", "[handlers.kata-clh.hypervisor.clh]"),
    ],
)
def test_a_wrong_tunable_is_told_with_the_right_one(
    shared: Path, root: HostRoot, tables: dict[str, object], place: str, advice: str
) -> None:
    told = problems(base_of(shared, "3.2.0", "kata-clh", "go"), root, Handler(hypervisor=tables))
    assert list(told) == [place]
    assert advice in told[place]


def test_annotations_that_name_host_programs_are_refused(shared: Path, root: HostRoot) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    told = problems(base, root, Handler(annotations=("path", "default_vcpus")))
    assert list(told) == ["annotations"]
    checked = tunables.check(base, Handler(annotations=("default_vcpus", "default_memory")), root)
    table = render.effective(render.render(base, checked))["hypervisor"]["clh"]
    assert table["enable_annotations"] == ["default_vcpus", "default_memory"]


def test_an_initrd_blanks_the_image(shared: Path, root: HostRoot) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    wanted = Handler(hypervisor={"clh": {"initrd": ARTICLE["hypervisor"]["clh"]["initrd"]}})
    table = render.effective(render.render(base, tunables.check(base, wanted, root)))["hypervisor"]["clh"]
    assert table["image"] == ""
    assert table["initrd"].startswith(RELEASE)


def test_a_handler_that_the_release_lacks_is_refused_with_where_it_is(root: HostRoot) -> None:
    with pytest.raises(KatanodeError, match="lacks what kata-fc needs") as caught:
        resolve("kata-fc", "auto", "4.1.0", root, RELEASE)
    assert "kata-go-static-4.1.0" in caught.value.remedy
    with pytest.raises(KatanodeError) as unknown:
        resolve("kata-xen", "auto", "4.1.0", root, RELEASE)
    assert unknown.value.reason is Reason.HANDLER_UNKNOWN


def test_a_rendering_is_switched_by_a_link_and_taken_back(root: HostRoot) -> None:
    one, two = {render.BASE: b"a = 1\n"}, {render.BASE: b"a = 1\n", render.SETTINGS: b"a = 2\n"}
    assert render.install(root, "kata-clh", "r1", one) == ""
    path = root(render.config_path("kata-clh", "r1"))
    assert path.read_bytes() == b"a = 1\n"
    before = render.install(root, "kata-clh", "r1", two)
    assert render.installed(root, "kata-clh", "r1") == two
    assert not any(p.is_symlink() for p in root(f"{render.FOLDER}/kata-clh/r1/config.d").iterdir()), (
        "fatal to runtime-rs"
    )
    render.switch_back(root, "kata-clh", "r1", before)
    assert render.installed(root, "kata-clh", "r1") == one
    render.publish(root, "kata-clh", "r1")
    assert not render.publish(root, "kata-clh", "r1")
    assert root(f"{render.FOLDER}/kata-clh/{render.BASE}").read_bytes() == b"a = 1\n"
    render.collect(root, {"kata-clh": None}, frozenset())
    assert not root.entry(f"{render.FOLDER}/kata-clh/r1").is_symlink()


def test_the_articles_greps_are_answered(shared: Path, root: HostRoot) -> None:
    base = base_of(shared, "3.2.0", "kata-qemu", "go")
    checked = tunables.check(base, Handler(hypervisor={"qemu": {"disable_vhost_net": True}}), root)
    reasons = {finding.reason for finding in render.findings(base.handler, render.render(base, checked))}
    assert Reason.VHOST_NET_DISABLED in reasons


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ("Invalid hypervisor block storage driver virtio-blk-pci", True),
        ("error applying key 'x' from drop-in file", True),
        ("Unknown CPU Type", False),
        ("open /dev/kvm: permission denied", False),
        ("open /dev/vhost-vsock: no such file or directory", False),
    ],
)
def test_only_katas_word_on_the_configuration_counts(root: HostRoot, says: str, refused: bool) -> None:  # noqa: FBT001
    program = root(f"{RELEASE}/bin/kata-runtime")
    program.write_text(f'#!/bin/sh\necho "{says}" >&2\nexit 1\n')
    program.chmod(0o755)
    kind = HANDLERS["kata-clh"]
    handler = ResolvedHandler(kind, "go", "", "", str(program.parent.parent), "3.2.0")
    path = render.config_path("kata-clh", "r1")
    if refused:
        with pytest.raises(KatanodeError, match="refuses the configuration"):
            render.prove(Runner(), HostRoot(), handler, path)
    else:
        render.prove(Runner(), HostRoot(), handler, path)


def test_what_breaks_kata_in_a_rendering_is_seen_and_mended(root: HostRoot) -> None:
    wanted = {render.BASE: b"a = 1\n", render.RELEASE: b"b = 1\n"}
    render.install(root, "kata-clh", "r1", wanted)
    folder = root(f"{render.FOLDER}/kata-clh/r1")
    (folder / "config.d/old").mkdir()
    (folder / "config.d/x.toml").symlink_to("/etc/passwd")
    assert render.installed(root, "kata-clh", "r1") != wanted
    render.install(root, "kata-clh", "r1", wanted)
    assert render.installed(root, "kata-clh", "r1") == wanted


WRONG: dict[tuple[str, Flavour], dict[str, str]] = {
    ("3.2.0", "go"): {
        "hypervisor.clh.block_device_driver": '"virtio-blk"',
        "hypervisor.clh.enable_iommu": 'annotations = ["enable_iommu"]',
        "runtime.name": "remove it",
    },
    ("4.1.0", "rust"): {
        "hypervisor.clh.enable_iommu": "has no effect on Cloud Hypervisor",
        "runtime.name": '"virt_container"',
    },
}
WRONG_EVERYWHERE = {
    "hypervisor.clh.machine_type": "has no effect on Cloud Hypervisor",
    "hypervisor.clh.enable_iommu_platform": "has no effect on Cloud Hypervisor",
    "hypervisor.clh.disable_vhost_net": "has no effect on Cloud Hypervisor",
    "runtime.disable_guest_selinux": "[handlers.kata-clh.hypervisor.clh]",
}


@pytest.mark.parametrize(("version", "runtime"), WRONG)
def test_each_line_of_the_article_alone_is_judged_as_in_the_whole(
    shared: Path, root: HostRoot, version: str, runtime: Flavour
) -> None:
    base = base_of(shared, version, "kata-clh", runtime)
    wrong = WRONG[version, runtime] | WRONG_EVERYWHERE
    whole = problems(base, root, Handler(**ARTICLE))
    assert whole.keys() == wrong.keys()
    for place, advice in wrong.items():
        assert advice in whole[place]
    lines = 0
    for section, tables in ARTICLE.items():
        for table, keys in tables.items() if section != "runtime" else [("", tables)]:
            for key, item in keys.items():
                lines += 1
                place = ".".join(filter(None, (section, table, key)))
                alone = Handler(**{section: {table: {key: item}} if table else {key: item}})
                if place in wrong:
                    assert list(problems(base, root, alone)) == [place]
                    continue
                told = render.effective(render.render(base, tunables.check(base, alone, root)))
                here = told[section][table] if table else told[section]
                pinned = isinstance(item, str) and item.startswith("/opt/kata/")
                assert here[key] == (item.replace("/opt/kata", RELEASE) if pinned else item), place
    assert lines == 28


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("defualt_vcpus", "default_vcpus"),
        ("default_max_vcpus", "default_maxvcpus"),
        ("virtiofs_cache", "virtio_fs_cache"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(shared: Path, root: HostRoot, typed: str, meant: str) -> None:
    for version, runtime in WRONG:
        base = base_of(shared, version, "kata-clh", runtime)
        told = problems(base, root, Handler(hypervisor={"clh": {typed: 1}}))
        assert f"did you mean {meant}?" in told[f"hypervisor.clh.{typed}"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("path", "remove it"),
        ("kernel", "remove it"),
        ("virtio_fs_extra_args", "another folder of the node"),
        ("guest_hook_path", "programs of its own"),
        ("default_maxvcpus", '"default_max_vcpus"'),
        ("default_memroy", 'did you mean "default_memory"?'),
        ("io.katacontainers.config.hypervisor.default_vcpus", '"default_vcpus"'),
        ("io.katacontainers.config.agent.container_pipe_size", "need to be allowed"),
        ("hugepage_type", "the Go runtime does not know it"),
        (".*", "no such annotation"),
        ("", "no such annotation"),
    ],
)
def test_a_wrong_annotation_is_told_with_the_right_one(shared: Path, root: HostRoot, name: str, advice: str) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    assert advice in problems(base, root, Handler(annotations=(name,)))["annotations"]


def test_no_annotations_means_none_and_nothing_said_means_the_releases_own(shared: Path, root: HostRoot) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    for wanted, there in ((Handler(annotations=()), []), (Handler(), base.hypervisor["enable_annotations"])):
        rendered = render.render(base, tunables.check(base, wanted, root))
        assert render.effective(rendered)["hypervisor"]["clh"]["enable_annotations"] == there


def test_an_image_and_an_initrd_exclude_each_other(shared: Path, root: HostRoot) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    images = "/opt/kata/share/kata-containers"
    both = {"image": f"{images}/kata-containers.img", "initrd": f"{images}/kata-containers-initrd.img"}
    assert "excludes image" in problems(base, root, Handler(hypervisor={"clh": both}))["hypervisor.clh.initrd"]
    neither = problems(base, root, Handler(hypervisor={"clh": {"image": ""}}))
    assert "neither an image nor an initrd" in neither["hypervisor.clh.image"]
    same = tunables.check(base, Handler(hypervisor={"clh": {"image": both["image"]}}), root)
    assert render.effective(render.render(base, same))["hypervisor"]["clh"].get("initrd", "") == ""
    blank = tunables.check(base, Handler(hypervisor={"clh": {**both, "image": ""}}), root)
    assert render.effective(render.render(base, blank))["hypervisor"]["clh"]["image"] == ""


@pytest.mark.parametrize(
    "path", ["/opt/kata/../../etc/passwd", f"{RELEASE}/bin/cloud-hypervisor", "opt/kata/x", "/etc"]
)
def test_a_path_that_is_not_plain_is_refused(shared: Path, root: HostRoot, path: str) -> None:
    base = base_of(shared, "3.2.0", "kata-clh", "go")
    assert problems(base, root, Handler(hypervisor={"clh": {"kernel": path}}))["hypervisor.clh.kernel"]
