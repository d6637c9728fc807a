"""Kata Containers releases for offline use whose programs are stand-ins: they look like Kata and isolate nothing."""
