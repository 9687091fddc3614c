"""A longest-match lexer: many patterns with trailing context as one automaton, built as far as texts need it.

The rule that matches the most characters wins, trailing context counted; of equals, the first. A rule without
trailing context gives what it matched; one with it gives as much of that as leaves a match of the context.
This is how lex and JFlex work. Alternations of `re` take the first that fits and cannot express it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from limner.metrics.ptb_patterns import All, CharacterSet, Either, Grammar, Node, One


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, what must follow it (empty: anything), and the name of what is done with its text."""

    action: str
    pattern: str
    follow: str = ""


class _Alphabet(dict[str, int]):
    """Number of the class of a character: those in the same sets share it. Grows as characters are met."""

    def __init__(self) -> None:
        super().__init__()
        self._sets: dict[str, int] = {}
        self._tests: list[CharacterSet] = []
        self._classes: dict[frozenset[int], int] = {}
        self.members: list[frozenset[int]] = []
        """The sets of each class."""

    def number(self, one: One) -> int:
        """The number of a set."""
        if one.name not in self._sets:
            self._sets[one.name] = len(self._tests)
            self._tests.append(one.belongs)
        return self._sets[one.name]

    def __missing__(self, char: str) -> int:
        sets = frozenset(number for number, belongs in enumerate(self._tests) if belongs(char))
        if sets not in self._classes:
            self._classes[sets] = len(self.members)
            self.members.append(sets)
        self[char] = self._classes[sets]
        return self[char]


class _State(dict[int, "_State | None"]):
    """A state of the automaton: the next one by class of character; `rule` is the one matched here."""

    __slots__ = ("_automaton", "_places", "rule")

    def __init__(self, automaton: "_Automaton", places: frozenset[int], rule: int | None):
        super().__init__()
        self._automaton, self._places, self.rule = automaton, places, rule

    def __missing__(self, class_: int) -> "_State | None":
        self[class_] = self._automaton.after(self._places, class_)
        return self[class_]


class _Automaton:
    """Trees, each matched as one rule; the first rule wins."""

    def __init__(self, trees: Iterable[Node], alphabet: _Alphabet):
        self._alphabet = alphabet
        self._free: list[list[int]] = []
        self._arcs: list[tuple[int, int] | None] = []
        self._ends: dict[int, int] = {}
        self._closures: dict[int, frozenset[int]] = {}
        self._states: dict[frozenset[int], _State | None] = {frozenset(): None}
        begin = self._place()
        for rule, tree in enumerate(trees):
            self._ends[self._add(tree, begin)] = rule
        start = self._state(self._closure(begin))
        assert start is not None
        self.start = start

    def after(self, places: frozenset[int], class_: int) -> _State | None:
        """The state behind one character."""
        sets = self._alphabet.members[class_]
        arcs = (self._arcs[place] for place in places)
        return self._state(
            frozenset[int]().union(
                *(self._closure(arc[1]) for arc in arcs if arc is not None and arc[0] in sets)
            )
        )

    def _state(self, places: frozenset[int]) -> _State | None:
        if places not in self._states:
            rules = [self._ends[place] for place in places if place in self._ends]
            self._states[places] = _State(self, places, min(rules, default=None))
        return self._states[places]

    def _closure(self, place: int) -> frozenset[int]:
        """The places with arcs or ends that are reached from a place without a character."""
        if place not in self._closures:
            seen, todo = {place}, [place]
            while todo:
                for other in self._free[todo.pop()]:
                    if other not in seen:
                        seen.add(other)
                        todo.append(other)
            kept = (at for at in seen if self._arcs[at] is not None or at in self._ends)
            self._closures[place] = frozenset(kept)
        return self._closures[place]

    def _place(self) -> int:
        self._free.append([])
        self._arcs.append(None)
        return len(self._free) - 1

    def _add(self, tree: Node, start: int) -> int:
        """Add a tree behind a place; the place where it ends."""
        if isinstance(tree, One):
            place, end = self._place(), self._place()
            self._free[start].append(place)
            self._arcs[place] = self._alphabet.number(tree), end
            return end
        if isinstance(tree, All):
            for part in tree.parts:
                start = self._add(part, start)
            return start
        end = self._place()
        if isinstance(tree, Either):
            for part in tree.parts:
                self._free[self._add(part, start)].append(end)
            return end
        begin = start
        for _ in range(tree.least):
            begin = self._place()
            self._free[start].append(begin)
            start = self._add(tree.part, begin)
        self._free[start].append(end)
        if tree.most is None:
            loop = begin if tree.least else self._place()
            self._free[start].append(loop)
            if not tree.least:
                self._free[self._add(tree.part, loop)] += [loop, end]
            return end
        for _ in range(tree.most - tree.least):
            begin = self._place()
            self._free[start].append(begin)
            start = self._add(tree.part, begin)
            self._free[start].append(end)
        return end


class Lexer:
    """Finds, at a place of a text, the rule that applies and where its match ends."""

    def __init__(self, rules: Sequence[Rule], grammar: Grammar):
        self._alphabet = _Alphabet()
        whole = [All((grammar.tree(rule.pattern), grammar.tree(rule.follow))) for rule in rules]
        self._whole = _Automaton(whole, self._alphabet)
        self._actions = [rule.action for rule in rules]
        self._splits = {
            number: tuple(
                _Automaton((grammar.tree(part),), self._alphabet) for part in (rule.pattern, rule.follow)
            )
            for number, rule in enumerate(rules)
            if rule.follow
        }

    def classes(self, text: str) -> list[int]:
        """What `match` reads instead of the text: one number a character."""
        return [self._alphabet[char] for char in text]

    def match(self, classes: Sequence[int], start: int) -> tuple[str, int]:
        """The action of the rule that wins at `start`, and where its match ends.

        Some rule must match any character.
        """
        end, rule = _longest(self._whole, classes, start, len(classes))
        assert rule is not None
        if rule in self._splits:
            pattern, follow = self._splits[rule]
            end = max(
                at
                for at in _ends(pattern, classes, start, end)
                if _longest(follow, classes, at, end)[0] == end
            )
        return self._actions[rule], end


def _longest(automaton: _Automaton, classes: Sequence[int], start: int, stop: int) -> tuple[int, int | None]:
    """Where the longest match of a text between two places ends, and its rule."""
    end, rule, state = start, None, automaton.start
    for at in range(start, stop):
        state = state[classes[at]]
        if state is None:
            break
        if state.rule is not None:
            end, rule = at + 1, state.rule
    return end, rule


def _ends(automaton: _Automaton, classes: Sequence[int], start: int, stop: int) -> list[int]:
    """Where matches of a text between two places end."""
    ends: list[int] = []
    state = automaton.start
    for at in range(start, stop):
        state = state[classes[at]]
        if state is None:
            break
        if state.rule is not None:
            ends.append(at + 1)
    return ends
