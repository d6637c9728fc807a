"""Machines that boot: a Debian node in QEMU, with systemd, kernel modules and a disk that can lose power."""
