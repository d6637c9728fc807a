"""Builds katanode's image with docker, podman or buildah, whichever is there."""
