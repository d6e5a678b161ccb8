# SPDX-License-Identifier: Apache-2.0
"""Names, places, things and stock phrases of the corpus. Data only."""

BOYS = """Tom Ben Sam Leo Max Jack Noah Finn Oscar Hugo Adam Luke Eli Owen Theo Milo Felix Jonas
Omar Ravi Kenji Mateo José Andrés Björn Emil Anton Ivan Diego Samir Tariq Kofi Jamal Liam Lucas
Henry Arthur George Peter Paul Simon David Daniel Martin Robin Toby Charlie Jasper Rufus Otto
Nico Hassan Arjun Wei Minh Pablo René Søren Walter Edgar""".split()
GIRLS = """Mia Anna Lily Emma Sara Ella Nora Ruby Rose Zoe Zoë Clara Alice Lucy Maya Nina Ivy Hannah
Eva Julia Leila Amina Yuki Mei Priya Sofia Chloé Renée Inés Ingrid Freya Astrid Olga Tanya Marta
Lena Greta Heidi Molly Daisy Poppy Hazel Grace Alma Edith Flora Stella Luna Bella Tess Kate Jane
Carmen Rosa Fatima Zara Aisha Linh Noor Wanda""".split()
ADULTS = """Mr. Brown;Mrs. Green;Mr. Hill;Mrs. Baker;Mr. Stone;Mrs. Carter;Mr. Fisher;Mrs. Woods;
Uncle Joe;Aunt May;Old Peter;Miss Bell;Mr. Miller;Mrs. Gray;Doctor Reed;Captain Cole""".replace("\n", "").split(";")
TOWNS = """Greenhill Brightwater Stonebridge Willowbrook Maplewood Riverton Sunnydale Oakfield
Applegate Moonhaven Silverlake Fairview Thornbury Elmwood Pinecrest Clearwater""".split()

# kind, home
HEROES = [("fox", "den"), ("rabbit", "burrow"), ("bear", "cave"), ("mouse", "hole"), ("squirrel", "tree"),
          ("hedgehog", "nest"), ("owl", "tree"), ("duck", "pond"), ("frog", "pond"), ("cat", "house"),
          ("dog", "house"), ("turtle", "garden"), ("goat", "farm"), ("lamb", "farm"), ("pony", "stable"),
          ("beaver", "lodge"), ("badger", "burrow"), ("otter", "den"), ("penguin", "island"),
          ("elephant", "valley"), ("lion", "cave"), ("monkey", "tree"), ("dragon", "cave"),
          ("robot", "workshop")]

# place, how to be there, three sights
PLACES = [
    ("forest", "in the forest", ["tall trees", "soft green moss", "a narrow path"]),
    ("beach", "on the beach", ["white sand", "small waves", "shiny shells"]),
    ("garden", "in the garden", ["red roses", "busy bees", "an old apple tree"]),
    ("market", "at the market", ["baskets of fruit", "a crowd of people", "colourful flags"]),
    ("park", "in the park", ["wide green grass", "a wooden bench", "a small pond"]),
    ("river", "by the river", ["round stones", "silver fish", "a wooden bridge"]),
    ("mountain", "on the mountain", ["grey rocks", "a cold stream", "white snow"]),
    ("lake", "by the lake", ["calm blue water", "a family of ducks", "a small boat"]),
    ("farm", "on the farm", ["a big red barn", "brown cows", "golden hay"]),
    ("meadow", "in the meadow", ["yellow flowers", "bright butterflies", "tall grass"]),
    ("library", "in the library", ["long shelves", "thousands of books", "a quiet corner"]),
    ("harbour", "at the harbour", ["fishing boats", "noisy gulls", "thick ropes"]),
    ("castle", "in the castle", ["stone walls", "a long staircase", "a dusty room"]),
    ("desert", "in the desert", ["hot sand", "a blue sky", "a few green plants"]),
    ("island", "on the island", ["palm trees", "warm sand", "a hidden bay"]),
    ("valley", "in the valley", ["a winding stream", "green hills", "a field of wheat"]),
    ("cave", "in the cave", ["dark walls", "drops of water", "sparkling stones"]),
    ("school", "at school", ["a big blackboard", "rows of desks", "a noisy playground"]),
]

# thing, what one does with it
THINGS = [
    ("kite", "fly it in the wind"), ("ball", "play with it"), ("key", "open the old door"),
    ("drum", "play a song on it"), ("lamp", "light the dark room"), ("book", "read it at night"),
    ("hat", "wear it in the sun"), ("scarf", "wear it in winter"), ("boat", "sail it on the pond"),
    ("ring", "wear it every day"), ("bell", "ring it in the morning"), ("basket", "carry apples in it"),
    ("map", "find the way"), ("clock", "know the time"), ("cup", "drink warm milk from it"),
    ("box", "keep small things in it"), ("coin", "buy a sweet bun"), ("blanket", "stay warm at night"),
    ("umbrella", "stay dry in the rain"), ("flute", "play a soft tune"), ("doll", "play with it"),
    ("whistle", "call the dog"), ("mirror", "look at the sky in it"), ("bicycle", "ride it to school"),
    ("lantern", "walk home in the dark"), ("brush", "paint pictures"), ("shell", "hear the sea in it"),
    ("feather", "write with it"), ("spoon", "eat soup with it"),
]
COLOURS = "red blue green yellow white black brown purple orange silver golden pink grey".split()
LOOKS = "old new small big shiny pretty strange little fine".split()
FOODS = [  # food, verb phrase for making it
    ("bread", "bake"), ("soup", "cook"), ("cake", "bake"), ("apple pie", "bake"), ("rice", "cook"),
    ("honey cake", "bake"), ("pancakes", "make"), ("cookies", "bake"), ("porridge", "cook"), ("jam", "make"),
    ("salad", "make"), ("noodles", "cook"), ("cheese sandwiches", "make"), ("fruit salad", "make")]
FRUITS = "apples pears plums cherries berries grapes oranges lemons peaches bananas figs melons".split()
COUNTED = """apples pears plums cherries oranges lemons books pencils cups balls coins shells stones
flowers eggs buttons stickers cards marbles boxes cookies candles leaves feathers""".split()
ANIMAL_SMALL = "bird;rabbit;kitten;puppy;mouse;hedgehog;duckling;squirrel;lamb;turtle".split(";")

LISTS = {
    "weather": ["the sun was {bright|warm|shining}", "the sky was {blue|clear|grey}", "a {soft|cold|warm} wind was blowing",
                "it was raining{ softly|}", "the air was {fresh|warm|cold}", "snow lay on the {roofs|ground}",
                "the birds were singing", "the leaves were falling", "there was not a single cloud in the sky"],
    "time": ["one day", "one morning", "one evening", "one afternoon", "one sunny day", "one cold day", "one quiet morning",
             "one rainy afternoon", "early one morning", "one day in {spring|summer|autumn|winter}", "on a {Monday|Friday|Sunday} morning"],
    "later": ["after a while", "a little later", "soon", "after some time", "a few minutes later", "before long", "at last", "in the end"],
    "next": ["the next day", "the next morning", "a few days later", "the following week", "that evening", "that night"],
    "trait": ["kind", "brave", "clever", "curious", "cheerful", "gentle", "honest", "patient", "quiet", "careful", "funny", "friendly"],
    "flaw": ["shy", "impatient", "lazy", "proud", "stubborn", "forgetful", "afraid of many things"],
    "happy": ["happy", "glad", "very happy", "full of joy", "proud", "delighted", "so happy"],
    "sad": ["sad", "very sad", "unhappy", "upset", "worried", "disappointed"],
    "smiled": ["smiled", "laughed", "nodded", "smiled and nodded", "laughed with joy", "gave a big smile"],
    "said": ["said", "said", "said", "answered", "replied"],
    "asked": ["asked", "asked", "wanted to know"],
    "size": ["little", "young", "small"],
    "walked": ["walked", "went", "ran", "hurried"],
    "thanks": ["Thank you", "Thank you so much", "Thank you very much", "Thanks", "How can I thank you"],
    "game": ["hide and seek", "tag", "ball", "chess", "cards"],
    "ending": [
        "From that day on, $hero and $pal were the best of friends.",
        "That night $hero slept well and dreamed of the {next adventure|wonderful day|$place}.",
        "And $hero never forgot that day.",
        "When $hero told the story at home, everyone {smiled|listened|clapped}.",
        "It had been a long day, but a very good one.",
        "$Hero went home with a {warm|light|full} heart.",
        "They laughed about it for many years.",
        "{And so everyone was happy.|And they all lived happily.|Everyone was happy again.}",
        "The moon rose over the {hills|trees|roofs}, and all was well.",
        ""],
}
