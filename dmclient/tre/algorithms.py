"""Which authentication algorithms a TRE takes (REQ-30): those it lists, and none that comes as code (T15)."""

from __future__ import annotations

from dmclient.tre.state import TreState
from mcim.content import AlgorithmContent, Content
from mcim.errors import PackageRefused
from mcim.vocabulary import ResultCode


def require_algorithm(content: Content, state: TreState) -> None:
    """Refuse an algorithm that this TRE has not, whoever signed the package.

    Raises:
        PackageRefused: ALGORITHM_UNSUPPORTED.
    """
    if isinstance(content, AlgorithmContent):
        _require_no_code(content, state)
        return
    keys = content.keys
    if keys is not None and keys.label not in state.algorithms:
        raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, f"{keys.label} is not among the algorithms of this TRE")


def _require_no_code(content: AlgorithmContent, state: TreState) -> None:
    """T15: a format outside the profile is refused, and one inside it as well, for no back-end has an interpreter.

    Signed code of the home operator would run beside the keys of every other MCIM. A back-end that wants to run some
    needs a sandbox first; until then a profile's format names what such a TRE would be offered, nothing more.
    """
    if content.code is None:
        return
    known = content.code.format.label in state.code_formats
    reason = "no interpreter for it" if known else "not among the code formats of this TRE"
    raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, f"{content.code.format.label} code: {reason}")
