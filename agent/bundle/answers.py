"""katanode's own answers: what `check`, `status` and `plan` say, as their `--json` has it."""

from collections.abc import Iterator

from agent import inspect, plan, prepare, survey
from agent.bundle.gather import words
from agent.bundle.masking import json_piece
from agent.bundle.piece import Failure, Piece
from agent.bundle.scene import Scene
from agent.errors import KatanodeError
from agent.host import modules
from agent.probes import probe_all
from agent.reasons import Severity
from agent.report import Report, State, without_consequences


def report(scene: Scene) -> Iterator[Piece | Failure]:
    """The report of `katanode check`; where that cannot be made, at least what the probes find."""
    node = scene.node
    try:
        made = inspect.check(node)
    except KatanodeError as error:
        yield Failure("report.json", words(error))
        found = (*probe_all(node.root, node.runner), *prepare.findings_on_modules(modules.survey(node.root)))
        made = Report(without_consequences(found), (), State.BLOCKED)
        tree = [finding.as_json() for finding in made.findings]
        yield json_piece("probes.json", tree, note=f"instead of the report: {_reasons(made) or 'all is well'}")
        return
    reasons = _reasons(made)
    yield json_piece("report.json", made.as_json(), note=f"{made.state}: {reasons}" if reasons else str(made.state))


def status(scene: Scene) -> Iterator[Piece | Failure]:
    """What `katanode status` says."""
    yield json_piece("status.json", inspect.status(scene.node).as_json())


def planned(scene: Scene) -> Iterator[Piece | Failure]:
    """What `katanode plan` would do."""
    made = plan.make(survey.survey(scene.node).facts)
    yield json_piece("plan.json", made.as_json(), note="" if made.steps else "nothing to do")


def _reasons(made: Report) -> str:
    """The reasons that stand in the way: what whoever opens the bundle looks for first."""
    return ", ".join(dict.fromkeys(str(f.reason) for f in made.findings if f.severity is Severity.ERROR))
