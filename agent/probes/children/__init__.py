"""Programs that a probe runs as a process of their own: what they touch can hang, or changes the process that does it.

`agent.probes.child` starts them with `python -I`: they import nothing of katanode's. The function `program` of each
prints one line of JSON.
"""
