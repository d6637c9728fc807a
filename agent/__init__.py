"""katanode: turns a node into one that runs pods in Kata Containers virtual machines, and proves it."""

__version__ = "0.1.0"
