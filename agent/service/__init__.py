"""The daemon, `katanode run`: one loop that looks after the node, publishes what it found and serves it."""
