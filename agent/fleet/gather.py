"""The fleet as the cluster has it: nodes, and for the number of sandboxes the running pods and the RuntimeClasses."""

from collections.abc import Callable

from agent.cluster.api import ApiError
from agent.fleet.connect import Cluster, told
from agent.fleet.facts import HandlerOf, NodeFacts, OtherNode, RunningPod, keep_class, keep_node, keep_pod
from agent.fleet.mirror import Mirror
from agent.fleet.table import Fleet, iso, make


class Gathering:
    """What is read of a cluster.

    Args:
        cluster: the connection.
        count: whether sandboxes are counted, for which all running pods are read.
    """

    def __init__(self, cluster: Cluster, *, count: bool = True) -> None:
        api = cluster.api
        self._target = cluster.target
        self._nodes = Mirror[NodeFacts | OtherNode](api, "/api/v1/nodes", keep_node)
        self._pods = Mirror[RunningPod](api, "/api/v1/pods", keep_pod, fields="status.phase=Running")
        self._classes = Mirror[HandlerOf](api, "/apis/node.k8s.io/v1/runtimeclasses", keep_class)
        self._mirrors = (self._nodes, self._pods, self._classes)
        self._count = count
        self._refused: list[str] = []

    def fill(self) -> None:
        """Reads everything once.

        Raises:
            KatanodeError: `CLUSTER_UNREACHABLE`, `CLUSTER_FORBIDDEN` or `CLUSTER_CONFIG_INVALID`.
        """
        try:
            self._nodes.fill()
            if self._count:
                self._fill_if_allowed(self._classes)
                self._fill_if_allowed(self._pods)
        except ApiError as error:
            raise told(error, self._target) from error

    def _fill_if_allowed(self, mirror: Mirror[HandlerOf] | Mirror[RunningPod]) -> None:
        try:
            mirror.fill()
        except ApiError as error:
            if error.status != 403:
                raise
            if mirror is self._pods:
                self._count = False
                self._refused.append(f"SANDBOXES is not known: {error.message}.")
            else:
                self._refused.append(f"SANDBOXES takes each RuntimeClass for its handler's namesake: {error.message}.")

    def start(self, changed: Callable[[], None]) -> None:
        """Keeps everything as it is from now on; to be called after `fill`.

        Args:
            changed: called from several threads whenever something is different.
        """
        self._nodes.start(changed)
        if self._count:
            self._pods.start(changed)
            self._classes.start(changed)

    def stop(self) -> None:
        """Ends what `start` began."""
        for mirror in self._mirrors:
            mirror.stop()

    def fleet(self, now: float) -> Fleet:
        """The fleet as it was last seen.

        Args:
            now: Unix seconds.
        """
        # While the cluster is away nobody is silent who was not before.
        seen = min((m.away_since for m in self._mirrors if m.error and m.error.status != 403), default=now)
        made = make(self._nodes.items, self._pods.items if self._count else None, self._classes.items, seen)
        return Fleet(made.rows, made.others, (*made.notes, *self._refused, *self._absences()))

    def _absences(self) -> list[str]:
        """What to say while something cannot be watched."""
        for mirror in self._mirrors:
            error = mirror.error
            if error is None:
                continue
            if error.status == 403:
                return [f"Read anew now and then only, since watching is not allowed: {error.message}."]
            failure = told(error, self._target)
            words = error.message.splitlines()[0] if error.message else str(error)
            return [f"Since {iso(mirror.away_since)} {failure.message}; the table is from before. {words}"]
        return []
