# SPDX-License-Identifier: Apache-2.0
"""The template language of the corpus: text with choices, slots and word lists.

    {a|b|c}   one of the alternatives, nested as deep as wanted; an empty one is allowed
    $slot     the value of a slot of this document ($Slot: with a capital)
    %list     one entry of a word list, itself a template (%List: with a capital)

Expansion is a pure function of the template, the slots and the random generator.
"""

import functools
import re

TOKEN = re.compile(r"[{}|]|\$\w+|%\w+|[$%]|[^{}|$%]+")
VOWEL = re.compile(
    r"\b([Aa]) (?=(?:[aeiou]|honest|hour|8\b|11\b|18\b)(?!ne[ -]|niform|nicorn|seful|sual))"
)


def _sequence(tokens, position):
    """Parses until '|', '}' or the end; returns the nodes and where it stopped."""
    nodes = []
    while position < len(tokens) and tokens[position] not in "|}":
        token = tokens[position]
        position += 1
        if token == "{":
            branches = []
            while True:
                branch, position = _sequence(tokens, position)
                branches.append(branch)
                position += 1
                if tokens[position - 1] == "}":
                    break
            nodes.append(("choice", branches))
        elif token[0] in "$%" and len(token) > 1:
            nodes.append((token[0], token[1:]))
        else:
            nodes.append(("text", token))
    return nodes, position


@functools.lru_cache(maxsize=None)
def _parse(template):
    tokens = TOKEN.findall(template)
    nodes, end = _sequence(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"unbalanced braces in template: {template!r}")
    return nodes


def _look_up(table, name):
    if name in table:
        return table[name], False
    return table[name[0].lower() + name[1:]], True


class Writer:
    """Expands templates with one random generator and one set of word lists."""

    def __init__(self, rng, lists):
        self.rng = rng
        self.lists = lists

    def write(self, template, slots=None):
        text = self._join(_parse(template), slots or {})
        text = VOWEL.sub(r"\1n ", text)
        text = re.sub(r" {2,}", " ", text)
        return re.sub(r" *\n *", "\n", text).strip()

    def _join(self, nodes, slots):
        return "".join(self._node(kind, value, slots) for kind, value in nodes)

    def _node(self, kind, value, slots):
        if kind == "text":
            return value
        if kind == "choice":
            return self._join(self.rng.choice(value), slots)
        if kind == "$":
            text, capital = _look_up(slots, value)
        else:
            entries, capital = _look_up(self.lists, value)
            text = self._join(_parse(self.rng.choice(entries)), slots)
        return text[:1].upper() + text[1:] if capital else text
