# SPDX-License-Identifier: Apache-2.0
"""Writes the training text of the demo model: stories, descriptions, questions, chats.

    corpus.py --seed 1 --shards 8 --shard-mb 4 --out /tmp/corpus

Each shard depends only on (seed, shard index), so any number of processes writes the same
text. A shard is a JSON-lines file; a line is one document, without its end-of-text token.
"""
import argparse
import json
import multiprocessing
import pathlib
import random

import facts
import stories
import talk
import words
from grammar import Writer

SYSTEMS = ["You are a helpful assistant.", "You are a friendly assistant.", "You are a storyteller for children.",
           "You answer in short and simple sentences.", "You are a kind teacher."]


def turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def answer(think, content):
    """The last assistant turn: its reasoning is kept, and empty when thinking is off."""
    return turn("assistant", f"<think>\n{think}\n</think>\n\n{content}")


def careless(rng, user):
    """People do not always write capitals and full stops."""
    if rng.random() < 0.12:
        user = user.lower()
    if rng.random() < 0.12:
        user = user.rstrip(".?!")
    return user


def chat(writer):
    """One to five exchanges; only the last one has a think block, as the chat format has it."""
    rng = writer.rng
    exchanges = []
    while not exchanges or (len(exchanges) < 5 and rng.random() < 0.45):
        if rng.random() < 0.25:
            tale, asks = talk.story_exchange(writer)
            exchanges.append(tale)
            exchanges += rng.sample(asks, rng.randint(0, 3))
        else:
            exchanges.append(talk.exchange(writer))
    exchanges = [one._replace(user=careless(rng, one.user)) for one in exchanges]
    text = turn("system", rng.choice(SYSTEMS)) if rng.random() < 0.2 else ""
    for one in exchanges[:-1]:
        text += turn("user", one.user) + turn("assistant", one.answer)
    last = exchanges[-1]
    think = last.think if rng.random() < 0.5 else ""
    return text + turn("user", last.user) + answer(think, last.answer)


def quiz(writer):
    """Questions and answers as plain text, after a story or on their own."""
    rng = writer.rng
    if rng.random() < 0.5:
        tale = stories.story(writer)
        pairs = rng.sample(tale.asks, rng.randint(1, len(tale.asks)))
        head = tale.text + "\n\n"
    else:
        made = [talk.exchange(writer) for _ in range(rng.randint(2, 6))]
        pairs = [(one.user, one.answer) for one in made]
        head = ""
    return head + "\n\n".join(f"Question: {q}\nAnswer: {a}" for q, a in pairs)


def description(writer):
    """A paragraph about a town, a person, an animal or a day."""
    rng = writer.rng
    slots = stories.cast(rng)
    kind = rng.randrange(4)
    if kind == 0:
        return writer.write("$town is a {small|quiet|little|pretty} town {by the river|near the sea|between two hills|at the foot of a mountain}. "
                            "{About|Nearly} $n hundred people live there. {In the middle of the town there is|Everyone knows} {an old tower with a bell|a market with $fruit and $food|a $col fountain}. "
                            "{Every morning|On Sundays} the people {meet at the bakery|buy $fruit at the market|walk along the river}. "
                            "{The most famous person in $town is $elder, who {builds clocks|tells the best stories|bakes the best $food}.|$Elder has lived there for many years and knows every stone.} "
                            "{In winter the children play in the snow.|In summer the children swim in the river.|In autumn the streets are full of leaves.} {Visitors like the $place most of all.|It is a good place to live.}", slots)
    if kind == 1:
        who, does = rng.choice(facts.JOBS)
        return writer.write("$elder is a $who. {A $who $does.|Like every $who, $elder $does.} {Every day the work begins early in the morning.|The work is hard, but $elder likes it.} "
                            "{In the evening $elder {reads a book|plays the flute|cooks $food}.|At noon $elder eats $food.} "
                            "$hero, {a young $kind|a %trait $kind} from $town, often {comes to help|asks many questions|watches}. "
                            "{\"One day I want to be a $who, too,\" says $hero.|\"What do I need to be a good $who?\" asks $hero. \"Patience,\" says $elder.}",
                            dict(slots, who=who, does=does))
    if kind == 2:
        name, plural, group, home, food, skill, legs = rng.choice(facts.ANIMALS)
        one = talk._a(name)
        return writer.write(f"{talk._cap(plural)} are {{interesting|wonderful|well-known}} animals. {talk._cap(one)} is {talk._a(group)}. {{Most {plural} live|They live}} {home}. "
                            f"{{They eat {food}.|Their food is {food}.}} {{Everybody knows that {one} {skill}.|{talk._cap(one)} {skill}.}} "
                            f"{{It has {legs} legs.|Children like to draw {plural}.|Many stories are told about {plural}.}}")
    return writer.write("%time $hero {woke up early|got up late|opened the window}. %weather. {First|After breakfast} $he {walked|went} to the $place and saw $see. "
                        "{Then $he met $pal, and they played %game.|$Pal was already there.} {For lunch they had $food.|They ate some $fruit.} "
                        "{In the afternoon|Later} $he {read a book about {stars|ships|animals}|helped $elder in the garden|drew a picture of a $small}. "
                        "{In the evening $he was tired but %happy.|It was a quiet day, and $he liked it.}", slots)


KINDS = [(lambda w: stories.story(w).text, 34), (chat, 48), (quiz, 9), (description, 9)]


def documents(seed, shard):
    """An endless stream of documents."""
    writer = Writer(random.Random(f"{seed}/{shard}"), words.LISTS)
    makers, weights = zip(*KINDS)
    while True:
        yield writer.rng.choices(makers, weights)[0](writer)


def write_shard(job):
    seed, shard, bytes_wanted, path = job
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        for text in documents(seed, shard):
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
            written += len(text.encode())
            if written >= bytes_wanted:
                return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--shard-mb", type=float, default=4)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(args.seed, s, args.shard_mb * 1e6, args.out / f"shard{s:03d}.jsonl") for s in range(args.shards)]
    with multiprocessing.Pool() as pool:
        for path in pool.imap_unordered(write_shard, jobs):
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
