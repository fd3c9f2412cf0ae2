"""From text to gates, in the notation in which gates print."""

from __future__ import annotations

from jointgen.errors import ConfigError
from jointgen.objectives.algebra import MAX_NESTING, Expr, Weight
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
        if self.depth == MAX_NESTING:
            self.fail(f"conditions are nested more than {MAX_NESTING} deep")
        self.depth += 1
        gate = self.negated() if self.accept("not") else self.bracketed() if self.peek() == "(" else self.comparison()
        self.depth -= 1
        return gate

    def negated(self) -> Gate:
        self.take("(")
        gate = self.any_of()
        self.take(")")
        return ~gate

    def bracketed(self) -> Gate:
        """Read "(gate)", or a comparison whose expression begins with a bracket.

        If it is neither, the error is that of the reading that came further.
        """
        start, depth, inside = self.at, self.depth, self.inside
        try:
            self.take("(")
            gate = self.any_of()
            self.take(")")
            return gate
        except ConfigError as error:
            of_gate, reached = error, self.at
        self.at, self.depth, self.inside = start, depth, inside
        try:
            return self.comparison()
        except ConfigError:
            if reached > self.at:
                raise of_gate from None
            raise

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
