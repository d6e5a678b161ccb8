# SPDX-License-Identifier: Apache-2.0
"""Questions and answers: each maker returns an Exchange (question, reasoning, answer)."""
from collections import namedtuple

import facts
import stories
import words
from plots import PLOTS

Exchange = namedtuple("Exchange", "user think answer")


def _a(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _cap(text):
    return text[:1].upper() + text[1:]


def animal(w):
    name, plural, group, home, food, skill, legs = w.rng.choice(facts.ANIMALS)
    one = _a(name)
    kind = w.rng.randrange(6)
    if kind == 0:
        user = w.write(f"{{What do {plural} eat?|What does {one} eat?|Tell me what {plural} eat.}}")
        return Exchange(user, f"The question is about the food of {plural}. They eat {food}.",
                        w.write(f"{_cap(plural)} eat {food}."))
    if kind == 1:
        user = w.write(f"{{Where do {plural} live?|Where does {one} live?}}")
        return Exchange(user, f"The question is where {plural} live. They live {home}.",
                        f"{_cap(plural)} live {home}.")
    if kind == 2:
        user = w.write(f"{{How many legs does {one} have?|How many legs do {plural} have?}}")
        thing = "animal" if group == "mollusc" else group
        return Exchange(user, f"{_cap(one)} is {_a(thing)}. It has {legs} legs.", f"{_cap(one)} has {legs} legs.")
    if kind == 3:
        user = w.write(f"{{What kind of animal is {one}?|Is {one} {_a(group)}?}}")
        yes = "Yes, a" if user.startswith("Is") else "A"
        return Exchange(user, f"The user asks about {plural}. They belong to the {group}s.",
                        f"{yes}{one[1:]} is {_a(group)}.")
    if kind == 4:
        user = w.write(f"{{What is special about {one}?|What is {one} known for?}}")
        return Exchange(user, f"I think about {plural}. {_cap(one)} {skill}.", f"{_cap(one)} {skill}.")
    user = w.write(f"{{Tell me {{something|more|a little}} about {plural}.|What do you know about {plural}?|Describe {one}.}}")
    return Exchange(user, f"The user wants to know about {plural}. I will say where they live and what they eat.",
                    w.write(f"{_cap(one)} is {_a(group)} that lives {home}. It eats {food}. {_cap(one)} {skill}."))


def job(w):
    who, does = w.rng.choice(facts.JOBS)
    if w.rng.random() < 0.6:
        user = w.write(f"{{What does {_a(who)} do?|What is the work of {_a(who)}?|What is {_a(who)}?}}")
        return Exchange(user, f"The question is about the job of {_a(who)}.", f"{_cap(_a(who))} {does}.")
    return Exchange(f"Who {does}?", f"I look for the job: somebody who {does}.", f"{_cap(_a(who))} {does}.")


def what(w):
    thing, meaning = w.rng.choice(facts.WHATS)
    user = w.write(f"{{What is {thing}?|What is {thing}?|Can you explain what {thing} is?|Explain: {thing}.}}")
    return Exchange(user, f"The user wants to know what {thing} is. I will explain it in one sentence.",
                    f"{_cap(thing)} is {meaning}.")


def why(w):
    question, reason = w.rng.choice(facts.WHYS)
    user = w.write(f"{{Why {question}?|Why {question}?|Can you tell me why {question}?}}" if " is " not in question
                   else f"Why {question}?")
    because = w.write(f"{{Because {reason}.|That is because {reason}.}}")
    return Exchange(user.replace("tell me why do ", "tell me: why do "),
                    f"The user asks for a reason. The reason is that {reason}.", because)


def capital(w):
    country, city = w.rng.choice(facts.CAPITALS)
    if w.rng.random() < 0.7:
        user = w.write(f"{{What is the capital of {country}?|What is the capital of {country}?|Tell me the capital of {country}.|Which city is the capital of {country}?}}")
        return Exchange(user, f"The user asks for the capital of {country}. It is {city}.",
                        f"The capital of {country} is {city}.")
    return Exchange(f"Which country has the capital {city}?", f"{city} is the capital of {country}.",
                    f"{city} is the capital of {country}.")


def opposite(w):
    one, other = w.rng.choice(facts.OPPOSITES)
    user = w.write(f"{{What is the opposite of {one}?|Tell me the opposite of \"{one}\".|What is the opposite of \"{one}\"?}}")
    return Exchange(user, f"I need a word that means the opposite of {one}. That is {other}.",
                    f"The opposite of {one} is {other}.")


def colour(w):
    thing, hue = w.rng.choice(facts.COLOURS)
    plural = " in " in thing
    user = f"What colour {'are' if plural else 'is'} {thing}?"
    return Exchange(user, f"I think of {thing}. The colour is {hue}.", f"{_cap(thing)} {'are' if plural else 'is'} {hue}.")


def size(w):
    small, big = sorted(w.rng.sample(range(len(facts.SIZES)), 2))
    one, two = facts.SIZES[small], facts.SIZES[big]
    first, second = w.rng.sample([one, two], 2)
    bigger = w.rng.random() < 0.5
    answer, other = (two, one) if bigger else (one, two)
    word = "bigger" if bigger else "smaller"
    return Exchange(f"Which is {word}, {_a(first)} or {_a(second)}?",
                    f"{_cap(_a(two))} is big compared with {_a(one)}. So the {answer} is {word}.",
                    f"{_cap(_a(answer))} is {word} than {_a(other)}.")


def language(w):
    row = w.rng.choice(facts.LANGUAGES)
    index = w.rng.randrange(5)
    word, result = facts.LANGUAGE_WORDS[index], row[index + 1]
    user = w.write(f"{{How do you say \"{word}\" in {row[0]}?|What is \"{word}\" in {row[0]}?|Translate \"{word}\" into {row[0]}.}}")
    return Exchange(user, f"The user wants the {row[0]} word for \"{word}\". It is \"{result}\".",
                    f"\"{_cap(word)}\" in {row[0]} is \"{result}\".")


def calendar(w):
    names, label = w.rng.choice([(facts.DAYS, "day"), (facts.MONTHS, "month"), (facts.SEASONS, "season"), (facts.PLANETS, "planet")])
    index = w.rng.randrange(len(names) - 1)
    if w.rng.random() < 0.2:
        listed = ", ".join(names[:-1]) + " and " + names[-1]
        return Exchange(f"Name all the {label}s.", f"There are {facts.NUMBERS[len(names)]} {label}s. I will list them in order.",
                        f"The {facts.NUMBERS[len(names)]} {label}s are {listed}.")
    before, after = names[index], names[index + 1]
    if w.rng.random() < 0.6:
        return Exchange(f"Which {label} comes after {before}?", f"After {before} comes {after}.", f"After {before} comes {after}.")
    return Exchange(f"Which {label} comes before {after}?", f"Before {after} comes {before}.", f"Before {after} comes {before}.")


def arithmetic(w):
    kind = w.rng.randrange(4)
    words_ = w.rng.random() < 0.3
    if kind == 0:
        x, y = w.rng.randint(0, 20), w.rng.randint(0, 20)
        sign, name, value = "+", "plus", x + y
    elif kind == 1:
        x = w.rng.randint(1, 20)
        y = w.rng.randint(0, x)
        sign, name, value = "-", "minus", x - y
    elif kind == 2:
        x, y = w.rng.randint(0, 10), w.rng.randint(0, 10)
        sign, name, value = "*", "times", x * y
    else:
        x, y = w.rng.randint(0, 30), w.rng.randint(0, 30)
        if x == y:
            y += 1
        return Exchange(f"Which number is bigger, {x} or {y}?", f"I compare {x} and {y}. {max(x, y)} is more than {min(x, y)}.",
                        f"{max(x, y)} is bigger than {min(x, y)}.")
    if words_ and value <= 20:
        x, y, value, sign = facts.NUMBERS[x], facts.NUMBERS[y], facts.NUMBERS[value], name
    user = w.write(f"{{What is {x} {sign} {y}?|What is {x} {name} {y}?|{x} {sign} {y} = ?|How much is {x} {name} {y}?}}")
    return Exchange(user, f"I calculate {x} {name} {y}. The result is {value}.", _cap(f"{x} {name} {y} is {value}."))


def word_problem(w):
    slots = stories.cast(w.rng)
    hero, he, pal = slots["hero"], _cap(slots["he"]), slots["pal"]
    what_ = w.rng.choice(words.COUNTED)
    if w.rng.random() < 0.5:
        x, y = w.rng.randint(2, 12), w.rng.randint(2, 12)
        change = w.write(f"{{{pal} gives {slots['him']} {y} more|{he} finds {y} more|{he} buys {y} more}}")
        total, rule = x + y, f"{x} plus {y} is {x + y}"
    else:
        x = w.rng.randint(3, 20)
        y = w.rng.randint(2, x - 1)
        change = w.write(f"{{{he} gives {y} to {pal}|{he} loses {y}|{he} sells {y}}}")
        total, rule = x - y, f"{x} minus {y} is {x - y}"
    user = f"{hero} has {x} {what_}. {change}. How many {what_} does {hero} have now?"
    noun = what_ if total != 1 else "left"
    return Exchange(user, f"At first there are {x}. {change}. {_cap(rule)}.", f"{hero} has {total} {noun} now.".replace("left now", "left"))


def count(w):
    start = w.rng.randint(1, 20)
    stop = start + w.rng.randint(3, 10)
    if w.rng.random() < 0.7:
        row = list(range(start, stop + 1))
        user = w.write(f"{{Count from {start} to {stop}.|Please count from {start} to {stop}.}}")
    else:
        row = list(range(stop, start - 1, -1))
        user = f"Count down from {stop} to {start}."
    return Exchange(user, f"I begin with {row[0]} and stop at {row[-1]}.", ", ".join(map(str, row)) + ".")


def listing(w):
    group = w.rng.choice(sorted(facts.GROUPS))
    many = w.rng.randint(2, 5)
    picked = w.rng.sample(facts.GROUPS[group], many)
    number = facts.NUMBERS[many]
    user = w.write(f"{{Name|List|Tell me|Give me}} {number} {group}.")
    if w.rng.random() < 0.5:
        answer = "\n".join(f"{i + 1}. {_cap(p)}" for i, p in enumerate(picked))
    else:
        answer = _cap(", ".join(picked[:-1]) + " and " + picked[-1] + ".")
    return Exchange(user, f"The user wants {number} {group}.", answer)


def steps(w):
    task = w.rng.choice(sorted(facts.STEPS))
    user = w.write(f"{{How do I {task}?|How can I {task}?|Tell me how to {task}.|Explain how to {task}.}}")
    rows = "\n".join(f"{i + 1}. {s}." for i, s in enumerate(facts.STEPS[task]))
    return Exchange(user, f"The user wants to {task}. I will give clear steps.", w.write(f"{{Here is how to {task}:|You can do it like this:}}") + "\n\n" + rows)


def feeling(w):
    mood = w.rng.choice(sorted(facts.FEELINGS))
    user = w.write(f"{{I am {mood}.|I feel {mood} today.|I am {{so|very}} {mood}.|Today I am {mood}.}}")
    return Exchange(user, f"The user feels {mood}. I will answer in a friendly way.", w.rng.choice(facts.FEELINGS[mood]))


def poem(w):
    title, text = w.rng.choice(facts.POEMS)
    user = w.write(f"{{Write|Tell me}} a {{short |}}poem about {title}.")
    return Exchange(user, f"The user wants a poem about {title}. It should rhyme.", text.replace(" / ", "\n"))


def greeting(w):
    kind = w.rng.randrange(6)
    if kind == 0:
        return Exchange(w.write("{Hello|Hi|Good morning|Good evening|Hey}{!|.| there!}"), "The user says hello. I will greet back.",
                        w.write("{Hello!|Hi!|Hello there!} {How can I help you{ today|}?|What can I do for you?|It is nice to meet you.}"))
    if kind == 1:
        return Exchange(w.write("{How are you?|How are you today?|Are you well?}"), "The user asks how I am. I will answer politely.",
                        w.write("I am {fine|very well|well}, thank you. {How are you?|And you?|How can I help you?}"))
    if kind == 2:
        return Exchange(w.write("{Who are you?|What are you?|What is your name?|Tell me about yourself.}"), "The user asks who I am. I am a small demo model.",
                        w.write("I am a {small|very small} language model. {I was made to show how this program works.|I can tell stories and answer simple questions.} "
                                "{I can tell you a story if you like.|Ask me something simple!}"))
    if kind == 3:
        return Exchange(w.write("{What can you do?|How can you help me?|What do you know?}"), "The user asks what I can do. I will list a few things.",
                        "I can tell stories, answer simple questions, add small numbers and write short poems.")
    if kind == 4:
        name = w.rng.choice(words.BOYS + words.GIRLS)
        return Exchange(w.write(f"{{My name is {name}.|I am {name}.|Hello, I am {name}!}}"), f"The user is called {name}. I will greet {name}.",
                        w.write(f"{{Nice to meet you, {name}!|Hello, {name}!|It is nice to meet you, {name}.}} {{How can I help you?|What can I do for you?}}"))
    return Exchange(w.write("{Thank you!|Thanks!|Thank you very much.|That was helpful.|Great, thanks.}"), "The user says thank you. I will be polite.",
                    w.write("{You are welcome!|You are very welcome.|I am glad that I could help.} {Is there anything else?|Have a nice day!|}"))


def repeat(w):
    slots = stories.cast(w.rng)
    text = w.write("{%weather|$hero likes $fruit|the $col $thing is $at|$hero and $pal are friends|hello world|good night|the $kind lives $at}", slots)
    return Exchange(w.write(f"{{Repeat this|Say this|Repeat after me}}: {text}"), "I only have to repeat the words.", text)


def unknown(w):
    """A question that a very small model should admit it cannot answer."""
    slots = stories.cast(w.rng)
    user = w.write("{Who won the {match|election|race} {yesterday|last year}?|What is the price of {gold|a $thing|$fruit}?|"
                   "What will the weather be {tomorrow|next week}?|How old is $elder?|Where is my $thing?|"
                   "What is the news {today|of the week}?|Write a program in {C|Python}.|Solve this equation for me.|"
                   "How many people live in $town?|When was $hero born?|Who built the $place?|"
                   "What time is it?|What did I eat {today|yesterday}?|Where do I live?|"
                   "What is $n hundred times $n thousand?|Explain quantum physics.|Who is the president?}", slots)
    return Exchange(user, "I do not know this. I will say so.",
                    w.write("{I am sorry, I do not know that.|I do not know that.|That is too hard for me.} "
                            "{I am only a very small model.|I can tell you a story instead.|Ask me something simpler, please.}"))


def story_exchange(w):
    """A story asked for in chat, with the follow-up questions it can answer."""
    plot = w.rng.choice(PLOTS)
    tale = stories.story(w, plot)
    slots = tale.slots
    named = w.rng.random() < 0.5
    about = tale.about
    if named and slots["kind"] not in about:
        about = w.rng.choice([f"{_a(slots['kind'])} named {slots['hero']}", f"{slots['hero']} the {slots['kind']} and {about}"])
    user = w.write("{Tell me|Write|Can you tell me|Please tell me} a {short |little |}story about ") + about
    user += "?" if user.startswith("Can") else "."
    think = w.write("{The user wants a story about $about.|I will tell a story about $about.} "
                    "{The main character is $hero, a $kind.|It will be about $hero the $kind.} {I will give it a good end.|The lesson is: $lesson}",
                    dict(slots, about=about, lesson=tale.lesson))
    asks = [Exchange(q, f"I look at the story. {a}", a) for q, a in tale.asks]
    asks.append(Exchange(w.write("{What is the lesson of the story?|What can we learn from it?|What is the moral?}"),
                         f"The story is about {tale.about}.", tale.lesson))
    asks.append(Exchange("Who was the story about?", f"I look at the story. It was about {slots['hero']}.",
                         f"The story was about {slots['hero']}."))
    return Exchange(user, think, tale.text), asks


MAKERS = [(animal, 5), (job, 2), (what, 3), (why, 3), (capital, 3), (opposite, 2), (colour, 1.5), (size, 2),
          (language, 3), (calendar, 2), (arithmetic, 6), (word_problem, 4), (count, 2), (listing, 3), (steps, 2),
          (feeling, 2), (poem, 1.5), (greeting, 5), (repeat, 1.5), (unknown, 2)]


def exchange(w):
    makers, weights = zip(*MAKERS)
    return w.rng.choices(makers, weights)[0](w)
