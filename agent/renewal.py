"""The periodic canary: what was proved is proved again while nothing has changed.

Devices, files and the runtime's configuration are watched and probed all the time. This tells what only a start can
tell: a file system that was mounted noexec, memory that is used up, an image of the operator's own that was emptied.
"""

from dataclasses import replace

from agent import settings
from agent.host.lock import held
from agent.node import Node
from agent.state import LOCK
from agent.survey import able_handlers, survey


def renew(node: Node) -> None:
    """Starts a sandbox again through the handlers in force that are proved, or through those in doubt if there are any.

    With the settings of the last success: what is wished for and not in force yet is not proved. A proof that is lost
    leaves the state; the `apply` that follows tries it again at once.

    Raises:
        KatanodeError: `ANOTHER_RUN`, and as `survey`: what stands in the way of knowing what is in force.
    """
    with held(node.root(LOCK)):
        state = node.remembered()
        if not state.settings or node.journal.read() is not None:
            return  # nothing is in force; or the next apply finishes a change, with canaries of its own
        seen = survey(replace(node, settings=settings.from_json(state.settings)))
        proofs, able = seen.proofs, able_handlers(seen.proofs.node, seen.findings)
        names = [name for name in proofs.doubted or tuple(proofs.held) if name in able]
        proofs.renew(names)
        others = {name: proof for name, proof in state.proofs.items() if name not in names}
        node.remember(replace(seen.state, proofs={**others, **proofs.held}, failed=proofs.failed))
