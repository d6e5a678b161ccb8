# SPDX-License-Identifier: Apache-2.0
"""Small facts about the world: tables that talk.py turns into questions. Data only."""


def _rows(text):
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().split("\n")]


# animal, plural, class, home, food, sound or skill, legs
ANIMALS = _rows("""
cow | cows | mammal | on a farm | grass | gives milk | four
horse | horses | mammal | in a stable | hay and grass | can run very fast | four
pig | pigs | mammal | on a farm | almost everything | likes to roll in the mud | four
sheep | sheep | mammal | on a farm | grass | gives wool | four
goat | goats | mammal | on a farm | grass and leaves | can climb very well | four
dog | dogs | mammal | with people | meat and dog food | barks and guards the house | four
cat | cats | mammal | with people | meat and fish | catches mice and can purr | four
mouse | mice | mammal | in small holes | seeds and cheese | is very small and quick | four
rabbit | rabbits | mammal | in a burrow | grass and carrots | has long ears and can hop | four
fox | foxes | mammal | in the forest | mice and berries | is known to be clever | four
wolf | wolves | mammal | in the forest | meat | lives in a pack and howls | four
bear | bears | mammal | in the forest | fish, berries and honey | sleeps in winter | four
deer | deer | mammal | in the forest | leaves and grass | is shy and quick | four
squirrel | squirrels | mammal | in trees | nuts and seeds | hides nuts for the winter | four
hedgehog | hedgehogs | mammal | in gardens | insects and worms | has sharp spines | four
bat | bats | mammal | in caves | insects | flies at night | two
lion | lions | mammal | in Africa | meat | has a loud roar | four
tiger | tigers | mammal | in Asia | meat | has orange fur with black stripes | four
elephant | elephants | mammal | in Africa and Asia | leaves and grass | has a long trunk | four
giraffe | giraffes | mammal | in Africa | leaves of tall trees | has a very long neck | four
zebra | zebras | mammal | in Africa | grass | has black and white stripes | four
monkey | monkeys | mammal | in warm forests | fruit and leaves | climbs trees very well | four
camel | camels | mammal | in the desert | dry grass and plants | can live many days without water | four
kangaroo | kangaroos | mammal | in Australia | grass | carries its baby in a pouch | four
whale | whales | mammal | in the sea | small sea animals | is the biggest animal of all | no
dolphin | dolphins | mammal | in the sea | fish | is very clever and likes to jump | no
seal | seals | mammal | in cold seas | fish | swims very well | no
chicken | chickens | bird | on a farm | corn and seeds | lays eggs | two
duck | ducks | bird | on a pond | water plants and insects | can swim and quack | two
owl | owls | bird | in trees | mice | hunts at night | two
eagle | eagles | bird | in the mountains | small animals | can see very far | two
penguin | penguins | bird | near the South Pole | fish | cannot fly but swims very well | two
parrot | parrots | bird | in warm forests | seeds and fruit | can learn to say words | two
swan | swans | bird | on lakes | water plants | is white and has a long neck | two
sparrow | sparrows | bird | in towns and gardens | seeds and insects | is small and brown | two
ostrich | ostriches | bird | in Africa | plants and seeds | cannot fly but runs very fast | two
frog | frogs | amphibian | near ponds | insects | can jump far | four
snake | snakes | reptile | in warm places | small animals | moves without legs | no
turtle | turtles | reptile | on land and in water | plants | has a hard shell | four
crocodile | crocodiles | reptile | in warm rivers | meat | has strong teeth | four
lizard | lizards | reptile | in warm places | insects | likes to lie in the sun | four
shark | sharks | fish | in the sea | fish | has many sharp teeth | no
salmon | salmon | fish | in rivers and the sea | small fish | swims up the river | no
goldfish | goldfish | fish | in ponds | fish food and water plants | is orange | no
bee | bees | insect | in a hive | nectar from flowers | makes honey | six
ant | ants | insect | in the ground | almost everything | can carry heavy things | six
butterfly | butterflies | insect | in meadows | nectar from flowers | was once a caterpillar | six
ladybird | ladybirds | insect | in gardens | small insects | is red with black spots | six
spider | spiders | arachnid | in a web | insects | makes a web | eight
octopus | octopuses | mollusc | in the sea | crabs and fish | has eight arms | no
snail | snails | mollusc | in gardens | leaves | carries its house on its back | no
""")

# who, what they do
JOBS = _rows("""
baker | bakes bread and cakes
farmer | grows food and keeps animals
doctor | helps sick people
nurse | takes care of sick people
teacher | teaches children at school
fisherman | catches fish
cook | makes food in a kitchen
tailor | makes clothes
carpenter | makes things from wood
painter | paints pictures and walls
pilot | flies planes
sailor | works on a ship
firefighter | puts out fires
police officer | keeps people safe
gardener | takes care of plants
writer | writes books
musician | makes music
singer | sings songs
dentist | takes care of teeth
vet | helps sick animals
librarian | takes care of books
builder | builds houses
plumber | repairs water pipes
postman | brings letters and parcels
astronaut | flies into space
mechanic | repairs cars
clockmaker | makes and repairs clocks
shepherd | looks after sheep
judge | decides in a court
scientist | finds out how the world works
""")

# thing, what it is (completes "X is ...")
WHATS = _rows("""
a clock | a machine that shows the time
a bridge | a way over a river or a road
an umbrella | a thing that keeps you dry in the rain
a key | a small tool that opens a lock
a book | many pages with words or pictures
a library | a place where you can read and borrow books
a hospital | a place where sick people are helped
a school | a place where children learn
a market | a place where people buy and sell things
a bakery | a shop that sells bread and cakes
a museum | a place that shows old or interesting things
a train | a long vehicle that runs on rails
a bicycle | a vehicle with two wheels that you move with your feet
a ship | a big boat that travels over the sea
a plane | a machine that flies in the air
a lamp | a thing that gives light
a mirror | a glass in which you can see yourself
a hammer | a tool for hitting nails
a ladder | a thing with steps for climbing up
a telescope | a tool for looking at the stars
a map | a drawing that shows where places are
a compass | a tool that shows where north is
a piano | a musical instrument with black and white keys
a drum | a musical instrument that you hit
a flute | a musical instrument that you blow into
a guitar | a musical instrument with strings
a volcano | a mountain that can throw out hot rock
an island | land with water all around it
a desert | a very dry place with little rain
a forest | a place with many trees
a river | water that flows through the land to the sea
a lake | a large area of water with land around it
a mountain | a very high piece of land
a valley | low land between hills or mountains
the sun | a star that gives us light and warmth
the moon | a ball of rock that travels around the Earth
a star | a very hot ball of gas far away in space
a cloud | many tiny drops of water in the air
rain | water that falls from the clouds
snow | frozen water that falls in soft white flakes
ice | frozen water
a rainbow | a bow of colours in the sky
thunder | the loud sound of lightning
honey | a sweet food made by bees
bread | a food made from flour and water
cheese | a food made from milk
butter | a food made from cream
paper | a thin material made from wood
glass | a hard, clear material made from sand
wool | the soft hair of sheep
a friend | somebody who likes you and helps you
a promise | words that say you will surely do something
a story | words that tell what happened
a dream | pictures and stories in your mind while you sleep
a computer | a machine that works with numbers and words
a robot | a machine that can do work by itself
a token | a small piece of text
a language model | a program that writes text one token at a time
""")

WHYS = _rows("""
do people use umbrellas | they want to stay dry in the rain
do birds build nests | they need a safe place for their eggs
do we sleep | our body and mind need rest
do we drink water | our body needs water to live
do plants need the sun | they make their food from light
do leaves fall in autumn | trees save water for the winter
do we wear coats in winter | it is cold outside
do people go to school | they want to learn
do we brush our teeth | we want to keep them clean and healthy
do bees visit flowers | they collect nectar to make honey
do squirrels hide nuts | they need food for the winter
do cats have whiskers | they help cats to feel their way
do fish have gills | they need them to breathe in water
do camels have humps | they store fat in them
do we wash our hands | soap and water take away dirt and germs
do people read books | books teach us things and tell good stories
do we say thank you | it shows that we are grateful
do boats float | they are lighter than the water they push away
do we have bones | they hold up our body
is the sky blue | the air scatters blue light the most
is the sea salty | rivers carry salt from the rocks into the sea
is it dark at night | our side of the Earth is turned away from the sun
is snow white | it reflects all the colours of light
is ice slippery | there is a thin layer of water on top
is sleep important | it gives us new strength
does ice melt | it becomes too warm
does the moon shine | it reflects the light of the sun
does bread rise | yeast makes small bubbles in the dough
does a ball fall down | the Earth pulls it with gravity
do we see lightning before thunder | light is faster than sound
do people tell stories | stories help us to understand each other
do owls hunt at night | their big eyes see well in the dark
do penguins stand close together | they keep each other warm
do trees have roots | they drink water and hold on to the ground
do people cry | they are very sad or very happy
do dogs wag their tails | they show how they feel
do we cook food | it becomes easier to eat and safer
do cars need brakes | they must be able to stop
do we need friends | together life is easier and more fun
do people plant trees | trees give shade, fruit and clean air
""")

CAPITALS = _rows("""
France | Paris
Germany | Berlin
Italy | Rome
Spain | Madrid
Portugal | Lisbon
England | London
Ireland | Dublin
Austria | Vienna
Greece | Athens
Poland | Warsaw
Sweden | Stockholm
Norway | Oslo
Denmark | Copenhagen
Finland | Helsinki
Hungary | Budapest
Russia | Moscow
Turkey | Ankara
Egypt | Cairo
Kenya | Nairobi
China | Beijing
Japan | Tokyo
India | New Delhi
Thailand | Bangkok
Vietnam | Hanoi
South Korea | Seoul
Canada | Ottawa
the United States | Washington
Mexico | Mexico City
Brazil | Brasília
Argentina | Buenos Aires
Peru | Lima
Chile | Santiago
Cuba | Havana
Australia | Canberra
New Zealand | Wellington
Iceland | Reykjavík
""")

OPPOSITES = _rows("""
hot | cold
big | small
long | short
tall | short
fast | slow
old | young
new | old
happy | sad
light | dark
heavy | light
hard | soft
wet | dry
full | empty
open | closed
early | late
day | night
summer | winter
up | down
left | right
in | out
yes | no
good | bad
right | wrong
true | false
rich | poor
strong | weak
loud | quiet
clean | dirty
thick | thin
wide | narrow
deep | shallow
near | far
high | low
first | last
begin | end
push | pull
give | take
buy | sell
laugh | cry
remember | forget
sweet | sour
brave | afraid
safe | dangerous
easy | difficult
cheap | expensive
""")

COLOURS = _rows("""
the sky | blue
grass | green
snow | white
the sun | yellow
a banana | yellow
a lemon | yellow
blood | red
a tomato | red
a strawberry | red
a carrot | orange
an orange | orange
coal | black
the night | black
milk | white
a frog | green
chocolate | brown
an elephant | grey
a flamingo | pink
a plum | purple
the sea | blue
gold | yellow
leaves in summer | green
leaves in autumn | red, yellow and brown
a zebra | black and white
a penguin | black and white
""")

# The order is by size, the smallest first.
SIZES = """ant;bee;mouse;frog;rabbit;cat;dog;sheep;pig;cow;horse;giraffe;elephant;whale""".split(";")

LANGUAGES = _rows("""
French | bonjour | merci | oui | au revoir | chat
German | guten Tag | danke | ja | auf Wiedersehen | Katze
Spanish | hola | gracias | sí | adiós | gato
Italian | ciao | grazie | sì | arrivederci | gatto
Portuguese | olá | obrigado | sim | adeus | gato
Dutch | hallo | dank je | ja | tot ziens | kat
Swedish | hej | tack | ja | hej då | katt
Polish | cześć | dziękuję | tak | do widzenia | kot
Russian | привет | спасибо | да | до свидания | кошка
Greek | γειά σου | ευχαριστώ | ναι | αντίο | γάτα
Turkish | merhaba | teşekkür ederim | evet | hoşça kal | kedi
Japanese | こんにちは | ありがとう | はい | さようなら | 猫
Chinese | 你好 | 谢谢 | 是 | 再见 | 猫
Korean | 안녕하세요 | 감사합니다 | 네 | 안녕히 가세요 | 고양이
Hindi | नमस्ते | धन्यवाद | हाँ | अलविदा | बिल्ली
""")
LANGUAGE_WORDS = ["hello", "thank you", "yes", "goodbye", "cat"]

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
SEASONS = "spring summer autumn winter".split()
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""".split()

GROUPS = {
    "farm animals": "cow horse pig sheep goat chicken".split(),
    "wild animals": "lion tiger wolf bear elephant giraffe".split(),
    "sea animals": "whale dolphin shark seal octopus crab".split(),
    "birds": "owl duck eagle swan parrot sparrow".split(),
    "insects": "bee ant butterfly ladybird fly grasshopper".split(),
    "fruits": "apple pear banana orange plum cherry grape".split(),
    "vegetables": "carrot potato tomato onion cabbage pea bean".split(),
    "colours": "red blue green yellow orange purple brown".split(),
    "musical instruments": "piano guitar flute drum violin trumpet".split(),
    "tools": "hammer saw knife ladder brush rope".split(),
    "vehicles": "car bus train bicycle ship plane".split(),
    "drinks": "water milk tea coffee juice lemonade".split(),
    "things in a kitchen": "pot pan spoon knife plate cup".split(),
    "clothes": "coat hat scarf shirt shoe glove".split(),
    "flowers": "rose tulip daisy lily sunflower violet".split(),
    "trees": "oak pine birch willow maple apple tree".replace("apple tree", "palm").split(),
}

STEPS = {
    "make tea": ["Boil some water", "Put a tea bag into a cup", "Pour the hot water into the cup",
                 "Wait for three minutes", "Take out the tea bag and enjoy your tea"],
    "plant a seed": ["Fill a pot with earth", "Make a small hole with your finger", "Put the seed into the hole",
                     "Cover it with earth", "Give it water and put it in the sun"],
    "brush your teeth": ["Put some toothpaste on your brush", "Brush all your teeth for two minutes",
                         "Spit out the toothpaste", "Wash your mouth with water"],
    "build a snowman": ["Make a big ball of snow", "Make two smaller balls", "Put the balls on top of each other",
                        "Use stones for the eyes and a carrot for the nose", "Give it a hat and a scarf"],
    "make a sandwich": ["Take two pieces of bread", "Put butter on the bread", "Add cheese and tomatoes",
                        "Put the pieces together and eat"],
    "wash your hands": ["Make your hands wet", "Take some soap", "Rub your hands for twenty seconds",
                        "Wash off the soap", "Dry your hands"],
    "cook rice": ["Wash the rice", "Put the rice and twice as much water into a pot", "Add a little salt",
                  "Cook it slowly until the water is gone"],
    "bake bread": ["Mix flour, water, salt and yeast", "Knead the dough for ten minutes",
                   "Let it rest until it is twice as big", "Bake it in a hot oven for forty minutes",
                   "Let it cool before you cut it"],
    "draw a cat": ["Draw a circle for the head", "Add two pointed ears", "Draw eyes, a nose and whiskers",
                   "Draw a long body and four legs", "Do not forget the tail"],
    "learn a song": ["Listen to the song a few times", "Read the words aloud", "Sing one line at a time",
                     "Sing the whole song every day"],
    "write a letter": ["Begin with the date", "Write a friendly greeting", "Tell your news and ask a question",
                       "Sign it with your name", "Put it into an envelope with a stamp"],
    "make a fruit salad": ["Wash the fruit", "Cut it into small pieces", "Put it into a big bowl",
                           "Add a little lemon juice and honey", "Mix it and serve it cold"],
    "find a lost thing": ["Stop and think about where you saw it last", "Look there first",
                          "Search one room after the other", "Ask other people for help"],
    "make a paper boat": ["Fold the paper in the middle", "Fold the two corners to the centre",
                          "Fold up the two long sides", "Open it and pull the corners apart"],
    "fall asleep": ["Make the room dark and cool", "Put away all screens", "Breathe slowly and deeply",
                    "Think of something nice"],
}

FEELINGS = {
    "sad": ["I am sorry to hear that. It can help to talk to a friend or to go for a walk.",
            "That is hard. Be kind to yourself, rest a little and talk to somebody you trust."],
    "tired": ["Then you should rest. A glass of water and a short sleep can do wonders.",
              "It sounds like you had a long day. Try to go to bed early tonight."],
    "happy": ["That is wonderful! What made you so happy?", "I am glad to hear that! Enjoy your day."],
    "bored": ["You could read a book, draw a picture or go for a walk.",
              "How about a story? I can tell you one about a fox, a star or a dragon."],
    "angry": ["Take a deep breath and count to ten. Then think about what you want to say.",
              "I understand. It often helps to go outside for a few minutes before you speak."],
    "afraid": ["It is all right to be afraid. Take a deep breath and look at one thing at a time.",
               "Being afraid is normal. Tell somebody about it, and it will feel smaller."],
    "lonely": ["I am sorry that you feel lonely. You could call a friend or say hello to a neighbour.",
               "Many people feel like that. A friendly word to somebody can be a good beginning."],
    "hungry": ["Then it is time to eat! How about soup, bread and cheese, or some fruit?",
               "You could make a sandwich or cook some rice."],
    "nervous": ["Breathe slowly and prepare well. You can do it!",
                "Everyone is nervous sometimes. Think of something that went well before."],
    "ill": ["I am sorry. Drink enough water, rest, and see a doctor if it does not get better.",
            "I hope you feel better soon. Rest is the best thing you can do now."],
}

POEMS = _rows("""
the sea | The sea is wide, the sea is deep, / it sings the little boats to sleep. / The waves come in, the waves go out, / and white gulls fly and turn about.
the moon | The moon looks down with silver light / and watches over all the night. / It sees the fox, it sees the deer, / and whispers softly: I am here.
spring | The snow is gone, the sky is blue, / the garden wakes and so do you. / A little bird begins to sing / and tells the trees that it is spring.
autumn | The leaves come down, red, gold and brown, / the wind is dancing through the town. / We light the lamp, we close the door / and tell the old tales just once more.
winter | The world is white, the night is long, / the wind is humming its old song. / But by the fire, warm and near, / we wait together for the year.
a cat | A little cat sat on the wall / and did not want to move at all. / It closed its eyes, it licked its paw, / and dreamed of all the things it saw.
friendship | A friend is like a lamp at night, / a little warm and steady light. / And when the road is dark and long, / two friends can walk it with a song.
rain | The rain is falling, drop by drop, / it dances on the roof, hop, hop. / It fills the river and the well, / and every flower likes it well.
a tree | A tall old tree stands on the hill, / through sun and snow, so strong and still. / It gives the birds a place to rest, / and in its arms it holds a nest.
a star | A little star, so far away, / that no one sees it through the day. / But when the night is dark and deep, / it shines for those who cannot sleep.
bread | The oven glows, the dough is round, / the baker makes a tapping sound. / The smell goes out through all the street, / and bread is warm and good to eat.
a train | The train goes fast, the train goes far, / past field and house and evening star. / It takes me where I want to be, / and home again in time for tea.
""")
