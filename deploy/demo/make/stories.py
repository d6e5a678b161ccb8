# SPDX-License-Identifier: Apache-2.0
"""Turns plots into stories: picks the characters, fills the slots, writes the beats."""
from collections import namedtuple

import words
from plots import PLOTS

Story = namedtuple("Story", "text about asks lesson slots")


def _pronouns(female, prefix=""):
    he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
    return {prefix + "he": he, prefix + "him": him, prefix + "his": his}


def _character(rng):
    """A child or a talking animal: name, whether female, kind."""
    female = rng.random() < 0.5
    name = rng.choice(words.GIRLS if female else words.BOYS)
    if rng.random() < 0.5:
        return name, female, "girl" if female else "boy"
    return name, female, rng.choice(words.HEROES)[0]


def cast(rng):
    """The slots of one document; the two characters never share a name."""
    hero, hero_female, kind = _character(rng)
    pal, pal_female, pal_kind = _character(rng)
    while pal == hero:
        pal, pal_female, pal_kind = _character(rng)
    place, at, sights = rng.choice(words.PLACES)
    see, see2 = rng.sample(sights, 2)
    thing, use = rng.choice(words.THINGS)
    food, cook = rng.choice(words.FOODS)
    small = rng.choice([a for a in words.ANIMAL_SMALL if a not in (kind, pal_kind)])
    size, pal_size = rng.choice(["little", "young", "small"]), rng.choice(["little", "young", "small"])
    slots = {
        "hero": hero, "kind": kind, "intro": f"a {size} {kind} named {hero}",
        "pal": pal, "pkind": pal_kind, "palintro": f"a {pal_size} {pal_kind} named {pal}",
        "place": place, "at": at, "see": see, "see2": see2, "thing": thing, "use": use,
        "food": food, "cook": cook, "small": small, "col": rng.choice(words.COLOURS),
        "look": rng.choice(words.LOOKS), "fruit": rng.choice(words.FRUITS),
        "elder": rng.choice(words.ADULTS), "town": rng.choice(words.TOWNS),
        "n": rng.choice(["three", "four", "five", "six", "seven"]),
    }
    slots.update(_pronouns(hero_female))
    slots.update(_pronouns(pal_female, "p"))
    return slots


def story(writer, plot=None):
    plot = plot or writer.rng.choice(PLOTS)
    slots = cast(writer.rng)
    paragraphs = []
    for block in plot.beats.split("\n\n"):
        sentences = [writer.write(beat, slots) for beat in block.split("\n")]
        paragraphs.append(" ".join(s for s in sentences if s))
    asks = [(writer.write(q, slots), writer.write(a, slots)) for q, a in plot.asks]
    return Story("\n\n".join(paragraphs), writer.write(plot.about, slots), asks, plot.lesson, slots)
