"""From text to gates, in the notation in which gates print."""

from __future__ import annotations

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import Expr, Weight
from jointgen.objectives.gates import STEP, Comparison, Figure, Gate
from jointgen.objectives.parse import Vocabulary, _Parser


def parse_gate(text: str, vocabulary: Vocabulary | None = None) -> Gate:
    """Read a condition as it prints.

    Raises:
        ConfigError: The text is no condition; the message marks the place as ⟨here⟩.

    >>> print(parse_gate("step > 100 and (f/loss > 1 or not (f/max_abs < 2))"))
    step > 100 and (f/loss > 1 or not (f/max_abs < 2))
    """
    parser = _GateParser(text, vocabulary or Vocabulary())
    gate = parser.any_of()
    parser.expect_end()
    return gate


class _GateParser(_Parser):
    """Reads conditions; in their expressions, figures by name as well."""

    def any_of(self) -> Gate:
        gate = self.all_of()
        while self.accept("or"):
            gate = gate | self.all_of()
        return gate

    def all_of(self) -> Gate:
        gate = self.one()
        while self.accept("and"):
            gate = gate & self.one()
        return gate

    def one(self) -> Gate:
        if self.accept("not"):
            self.take("(")
            gate = self.any_of()
            self.take(")")
            return ~gate
        bracketed = self.bracketed() if self.peek() == "(" else None
        return self.comparison() if bracketed is None else bracketed

    def bracketed(self) -> Gate | None:
        """Read "(gate)"; None, having read nothing, where the bracket belongs to an expression."""
        start, depth, inside = self.at, self.depth, self.inside
        try:
            self.take("(")
            gate = self.any_of()
            self.take(")")
        except ConfigError:
            self.at, self.depth, self.inside = start, depth, inside
            return None
        return gate

    def comparison(self) -> Comparison:
        start = self.at
        left = self.sum()
        sign = self.accept("<", ">")
        if not sign:
            self.fail("expected '<' or '>'")
        right = self.sum()
        made: Comparison = self.checked(start, lambda: Comparison(left, "<" if sign == "<" else ">", right))
        return made

    def factor(self) -> Expr | Weight:
        if self.peek() == STEP and self.kind() == "name":
            return Figure(self.next())
        if self.kind() == "name" and self.peek(1) == "/" and self.kind(2) == "name":
            critic, _, figure = self.next(), self.next(), self.next()
            return Figure(f"{critic}/{figure}")
        return super().factor()
