# SPDX-License-Identifier: Apache-2.0
"""The stories: each plot is what it is about, its beats, its questions and its lesson.

A line of `beats` is a sentence or two; an empty line starts a new paragraph. `asks` holds
"question => answer" lines whose answers the beats contain. Slots are filled by stories.py.
"""
from collections import namedtuple

Plot = namedtuple("Plot", "about beats asks lesson")

OPEN = "{Once upon a time|Once upon a time|Once|Long ago|A long time ago}"
BORN = "{there was|there lived} $intro"
PLOTS = []


def plot(about, lesson, asks, beats):
    PLOTS.append(Plot(about, beats.strip("\n"), [a.split(" => ") for a in asks.split("\n")], lesson))


plot("a lost $thing", "It is good to give back what we find.",
     """What did $hero find? => $Hero found a $col $thing.
Where did $hero find the $thing? => $Hero found it $at.
Whose $thing was it? => The $thing belonged to $pal.""", f"""
{OPEN} {BORN}.
%Time, %weather, and $he went for a walk $at.
{{Near|Next to}} $see, $he saw something $col. It was a $thing!
{{"Who lost this $thing?" $he asked.|"What a {{pretty|fine|beautiful}} $thing," $he thought. "Somebody must miss it."|$He wanted to keep it{{ and $use|}}, but it was not $his.}}

$Hero {{asked everyone $he met|walked from house to house}}. {{"Is this your $thing?" $he asked.|Nobody knew the $thing.}}
%Later $he came to $palintro, who was sitting under a tree and looked %sad.
"What is wrong?" asked $hero.
"I lost my $col $thing," said $pal. {{"I looked everywhere."|"$Elder gave it to me."}}
$Hero {{smiled and held out the $thing|showed $phim the $thing}}. "Is it this one?"

"Yes! %Thanks!" {{cried|said}} $pal. $Phe was %happy.
{{$Pal gave $hero some $fruit, and they ate them together.|They spent the whole afternoon together.|Then they played %game until it was dark.}}
%ending
""")

plot("sharing $food", "Food tastes better when it is shared.",
     """What did $hero make? => $Hero made $food.
Who was hungry? => $Pal was hungry.
Where did $hero meet $pal? => $Hero met $pal $at.""", f"""
{{{OPEN} {BORN} who loved $food.|In the town of $town lived $intro. $He loved $food more than anything.}}
%Time $he decided to $cook some $food. $He {{worked|was busy}} all morning, and the whole house smelled {{sweet|good|wonderful}}.
$He put the $food in a basket and went to eat it $at.

There $he met $palintro. {{"I have not eaten all day," said $pal.|"That smells so good," said $pal. "I am very hungry."}}
$Hero {{looked at the $food|looked into the basket}}. There was {{not much|only a little}} left for two.
{{But $he was %trait, and $he knew what to do.|At first $he wanted to keep it all. Then $he looked at $pal again.}}
"Sit down," $he said. "We can share."

They sat {{down near $see|in the shade}} and ate together. {{$Pal told a funny story, and $hero laughed.|They talked and laughed until the evening.}}
"%Thanks," said $pal. "Next time I will bring some $fruit."
{{The next day $pal came back with a whole basket of $fruit.|And $phe kept $phis word.}}
%ending
""")

plot("a $small with a hurt leg", "Small acts of kindness are never forgotten.",
     """Which animal was hurt? => A little $small was hurt.
Who helped the $small? => $Hero helped the $small.
Where was the $small? => The $small was $at.""", f"""
{{%Time|One day}}, $intro was walking $at. {{%Weather.|}}
Suddenly $he heard a {{small|thin|sad}} cry. {{Near|Next to}} $see lay a little $small. Its leg was hurt.
"{{Do not be afraid|Do not worry|You poor thing}}," said $hero. "I will help you."

$He {{carefully picked up the $small|put the $small in $his warm hat}} and {{carried it home|took it to $elder}}.
{{$He washed the leg and wrapped it in a clean cloth.|"The leg is not broken," said $elder. "It only needs rest."}}
Every day $hero gave it water and food. {{At night it slept in a small box by the fire.|$He talked to it in a soft voice.}}
{{After one week|After two weeks|%Later}} the $small could {{run|stand|move}} again.

{{Now it was time to say goodbye. $Hero was a little sad, but $he was also proud.|$Hero took the $small back to the place where $he had found it.}}
{{The $small looked back once and was gone.|"Goodbye, little friend," $he said.}}
{{Many weeks later $he lost $his way $at. Who came to show $him the path? It was the $small!|Every spring the $small came back to visit $him.}}
{{$Hero was %happy.|And that is how a $kind and a $small became friends.}}
""")

plot("a $kind who was afraid of the dark", "Things are less scary when we look at them in the light.",
     """What was $hero afraid of? => $Hero was afraid of the dark.
What made the noise? => A little $small made the noise.
Who gave $hero a lamp? => $Elder gave $hero a lamp.""", f"""
{OPEN} {BORN} who was afraid of the dark.
Every night $he {{hid under the blanket|could not sleep|asked for a light}}. "There is something in the dark," $he {{said|whispered}}.
%Time, $elder gave $him a small lamp. "When you are afraid," said $elder, "look and see what is really there."

That night $hero heard a strange noise. {{Tap, tap, tap.|Scratch, scratch.|It came from under the bed.}} $His heart beat {{fast|loudly}}.
{{$He wanted to run away.|$He wanted to call for help.}} But then $he remembered the words, took the lamp and looked.
It was only a little $small! {{It was cold and had come in through the window.|It was looking for something to eat.}}
{{"You are afraid too," said $hero, and $he laughed.|$Hero laughed. "Hello, little one," $he said.}}

$He gave the $small {{some bread|a warm place}} and went back to bed.
{{From that night on, $hero was not afraid of the dark any more.|After that, the dark was only the dark.}}
{{The next morning $he told $elder everything, and they both laughed.|$Elder was very proud of $him.}}
""")

plot("a big storm", "Friends help each other in hard times.",
     """What was coming? => A big storm was coming.
Where did $hero and $pal hide? => They hid in an old {{barn}}.
What did they eat? => They ate some $fruit.""".replace("{{barn}}", "barn"), f"""
{{%Time|One day}}, $hero and $pal were playing $at. $Hero was {{a|a %trait}} $kind, and $pal was {{a|a %trait}} $pkind.
{{Suddenly the sky turned dark.|Big grey clouds came over the hills.}} The wind became stronger and stronger.
"A storm is coming!" {{cried|shouted}} $pal. {{"We must go home!"|"What should we do?"}}
But home was too far away. {{$Hero looked around.|$Hero thought for a moment.}} "I know an old barn," $he said. "Follow me!"

They {{ran|hurried}} past $see and $see2, and the first drops began to fall.
The barn was old, but it was dry. {{Thunder rolled over the roof.|Lightning lit up the sky.}} $Pal began to {{shake|cry}}.
"Do not be afraid," said $hero and took $phis hand. {{"Let us sing a song."|"Let us count between the lightning and the thunder."|"I will tell you a story."}}
$Hero had some $fruit in $his bag, and they ate them {{slowly|together}}.

%Later the storm was over, and {{a rainbow stood over the fields|the sun came out again}}.
"You were so brave," said $pal. "%Thanks."
{{"I was afraid too," said $hero, "but it was easier with you."|$Hero smiled. "We were brave together."}}
%ending
""")

plot("a race", "You do not need to win to be a good friend.",
     """Who fell down in the race? => $Pal fell down in the race.
Who stopped to help? => $Hero stopped to help.
What was the prize? => The prize was a $col $thing.""", f"""
Every year there was a big race in the town of $town. {{The prize was a $col $thing.|The winner got a $col $thing.}}
$Intro wanted to win it. {{Every morning $he ran $at.|$He trained for many weeks.}} $His friend $pal, {{a %trait|a young}} $pkind, wanted to win too.
%Time the race began. "Ready, steady, go!" {{called|shouted}} $elder.

$Hero was fast. $He ran past $see and past $see2. {{Only $pal was in front of $him.|Soon only $pal was beside $him.}}
Then $pal {{fell over a stone|slipped in the mud}} and {{could not get up|hurt $phis foot}}.
{{$Hero could win now!|The finish was very near.}} But $he {{stopped|turned around}}. "Are you all right?" $he asked.
"{{My foot hurts|It hurts}}," said $pal. "Go on, you can still win!"
"No," said $hero. "We will {{finish|do it}} together." And $he helped $pal to the end.

They came last, but everyone {{clapped and cheered|stood up and clapped}}.
{{$Elder gave the $thing to both of them.|"The prize is for the best heart," said $elder, and gave the $thing to $hero.}}
{{"We can share it," said $hero.|$Hero and $pal were %happy.}}
%ending
""")

plot("a house in a tree", "Together we can build more than alone.",
     """What did $hero want to build? => $Hero wanted to build a tree house.
Who helped $hero? => $Pal helped $hero.
What colour was the roof? => The roof was $col.""", f"""
$Hero was a %trait $kind who {{liked to build things|always had new ideas}}. {{%Time $he had a big idea.|%Time $he said, "I want to build a tree house!"}}
$He found some {{wood|boards}}, a hammer and a box of nails and began to work.
But {{the boards were too heavy|the ladder was too short}} for one {{$kind|alone}}. {{Everything fell down.|Nothing worked.}} $Hero was %sad.

Then $palintro came by. "What are you doing?" $phe asked.
"I am building a tree house, but I cannot do it alone," said $hero.
"{{Let me help you|I can help|Then let us do it together}}!" said $pal. $Phe {{held the boards|brought a longer ladder|had strong arms}}, and $hero {{used the hammer|put in the nails}}.
They worked {{the whole day|for three days}}. {{$Elder brought them some $food.|At noon they ate some $fruit and rested.}}

%Later the tree house was ready. It had {{two windows|a small door}} and a $col roof.
{{From the top they could see $see.|They climbed up and looked at the stars.}}
"It is the best house in the world," said $pal.
{{"Because we built it together," said $hero.|And $hero knew that $phe was right.}}
""")

plot("a little seed", "Good things need time.",
     """What did $hero plant? => $Hero planted a little seed.
Who gave $hero the seed? => $Elder gave $hero the seed.
What grew from the seed? => A {{tall}} flower grew from the seed.""".replace("{{tall}}", "tall $col"), f"""
%Time, $elder gave $intro a little seed. "{{Take good care of it|Plant it and be patient}}," $elder said.
$Hero {{dug a small hole in the garden|put it into a pot}} and gave it some water. Then $he {{sat down and waited|waited and waited}}.
{{Nothing happened.|After one hour, nothing had happened.}} "{{Is it broken|Why does it not grow}}?" $he asked.
"It is growing where you cannot see it," said $elder. {{"Give it time."|"You must wait."}}

Every day $hero gave the seed some water. {{When it was too hot, $he made some shade.|When the weeds came, $he pulled them out.}}
One week went by, and then {{another one|two more}}. {{$Pal laughed. "There is nothing in there," $phe said.|"Maybe it is only a stone," said $pal.}}
But $hero did not give up.

%Next there was something green! {{$Hero jumped for joy.|"Look! Look!" cried $hero.}}
The green thing grew {{taller and taller|every day}}, and in summer it became a tall $col flower.
{{"You were right," $he said to $elder. "Good things need time."|Even $pal came to look at it. "It is beautiful," $phe said.}}
{{In autumn the flower gave $him a hundred new seeds.|$Hero was %happy.}}
""")

plot("a broken $thing", "Telling the truth is the best way.",
     """What did $hero break? => $Hero broke the $col $thing.
Whose $thing was it? => It was $elder's $thing.
Did $hero tell the truth? => Yes, $hero told the truth.""", f"""
{{In the house of $elder stood|On $elder's table was}} a $col $thing. It was very {{old|fine|precious}}.
%Time $hero, a %trait $kind, was playing {{with a ball|%game}} in the room. {{Crash!|Bang!|There was a loud noise.}} The $thing fell to the floor and broke.
$Hero was %sad. {{"What will $elder say?" $he thought.|Nobody had seen it.}}
"{{Hide it|You can say that the cat did it}}," said $pal. {{"No one will know."|"Then nobody will be angry with you."}}

$Hero {{thought about it all day|could not eat $his $food|could not sleep}}. {{It did not feel right.|$His heart felt heavy.}}
%Later $he went to $elder and said, "I broke your $thing. {{I am very sorry|It was my fault}}."
$Elder {{looked at $him for a long time|was quiet for a moment}}. {{Then $elder smiled.|}} "I am sad about the $thing," $elder said, "but I am glad that you told me the truth."
{{"Can we mend it?" asked $hero.|"I will help you to mend it," said $hero.}}

They worked {{all evening|together}} with glue and {{a little paint|a lot of patience}}. {{You could still see the cracks, but it looked fine.|In the end it was almost as good as new.}}
{{$Hero felt light again.|Now $hero could eat and laugh again.}}
{{And $pal learned something that day, too.|From then on $he was always careful, and always honest.}}
""")

plot("a birthday surprise", "The best present is to think of others.",
     """Whose birthday was it? => It was $pal's birthday.
What did $hero give to $pal? => $Hero gave $pal a $col $thing.
How much money did $hero have? => $Hero had only $n coins.""", f"""
{{Tomorrow was $pal's birthday.|The birthday of $pal was near.}} $Hero wanted to give $phim something special.
$Hero was a %trait $kind, but $he had only $n coins. {{"That is not much," $he thought.|$He counted them twice.}}
%Time $he went to the market in $town. There were {{so many beautiful things|toys, books and sweets}}, but everything was {{too expensive|too much}}.
Then $he saw a $col $thing. "How much is it?" $he asked.
"Ten coins," said $elder, who had the shop.

{{$Hero's face fell.|$Hero looked at $his $n coins.}} "{{Can I work for it|May I help you in the shop}}?" $he asked.
{{So all afternoon $he carried boxes and swept the floor.|$Elder nodded, and $hero worked until the evening.}}
"You have earned it," said $elder and {{put the $thing into a box|wrapped the $thing in paper}}.

{{The next day all the friends came together.|The next day they hid behind the door.}} "Surprise!" they {{called|shouted}} when $pal came in.
There was {{a big cake|lemonade}} and music. When $pal opened the present, $phis eyes were bright. "A $thing! {{It is just what I wanted|Now I can $use}}! %Thanks!"
{{$Hero was %happy.|$Hero was tired, but very happy.}}
""")

plot("a $kind who learned to swim", "Practice makes us better every day.",
     """What did $hero want to learn? => $Hero wanted to learn to swim.
Who taught $hero? => $Pal taught $hero.
Where did they practise? => They practised in the lake.""", f"""
{OPEN} {BORN} who could not swim. {{All $his friends could swim, only $he could not.|$He always sat on the grass and watched the others.}}
%Time, $pal, a %trait $pkind, sat down beside $him. "Do you want to learn it?" $phe asked. "I can teach you."
"I am afraid of the water," said $hero.
"{{Everyone is afraid of something|That is all right}}," said $pal. "We will begin with one small step."

On the first day $hero only put $his feet into the lake. {{The water was cold.|It was not so bad.}}
On the second day $he {{went in up to $his belly|learned to float}}. {{$Pal stayed close all the time.|"I will hold you," said $pal.}}
On the third day $he {{went under and came up again|swallowed a lot of water}}. {{"I cannot do it!" $he cried. "Not yet," said $pal.|"Try again," said $pal, and $hero tried again.}}
{{Every day was a little easier.|$He practised every day.}}

{{After two weeks|%Later}} $hero swam across the {{whole|little}} lake! {{All $his friends cheered.|$He could hardly believe it.}}
"I did it!" $he shouted. "%Thanks, $pal!"
{{"You did it yourself," said $pal. "I only stood beside you."|"I knew it," said $pal.}}
""")

plot("an old map", "The greatest treasure is a good friend.",
     """Where did $hero find the map? => $Hero found the map in an old book.
Who went with $hero? => $Pal went with $hero.
What was in the chest? => A $col $thing was in the chest.""", f"""
{{%Time|One rainy day}}, $intro was reading an old book. Out fell a piece of paper. It was a map!
{{A red cross was painted on it.|It showed the way to a treasure.}} "{{A treasure|An adventure}}!" {{cried|whispered}} $hero, and $he ran to $his friend $pal, a %trait $pkind.
{{They packed some $fruit and a rope.|They took a lamp, a rope and some bread.}} Then they followed the map.

First they came to $see. {{Then they climbed over a high wall.|Then they crossed a cold stream.}} {{It was hard work.|Their feet were tired.}}
"I cannot go on," said $pal. {{"Let us rest a little," said $hero, "and then we go on together."|"I will carry your bag," said $hero.}}
The red cross was $at. They {{dug|looked}} for a long time. {{At last|Suddenly}} they {{found|saw}} an old chest.

{{Slowly|Carefully}} they opened it. Inside lay a $col $thing and a letter.
The letter said: "{{You have found the treasure. Look who is standing beside you.|The real treasure is the friend who came with you.}}"
{{Hero and pal laughed.|They looked at each other and laughed.}} {{"It is true," said $pal.|"Then we are rich," said $hero.}}
%ending
""".replace("Hero and pal laughed.", "$Hero and $pal laughed."))

plot("a new friend", "A friendly word can open any door.",
     """Who was new in $town? => $Pal was new in $town.
What did they play? => They played %game.
How did $pal feel at first? => At first $pal felt lonely.""".replace("%game", "hide and seek"), f"""
$Pal was new in the town of $town. $Phe was a {{quiet|shy}} $pkind and knew nobody. {{$Phe sat alone and felt lonely.|Every day $phe sat alone and felt lonely.}}
{{The others played together, but nobody asked $phim.|$Phe watched the others and did not know what to say.}}
%Time, $intro saw $phim. "Hello," said $hero. "{{I am|My name is}} $hero. What is your name?"
"{{I am|My name is}} $pal," $phe {{said in a soft voice|whispered}}.
"{{Do you want to play with us|Would you like to play hide and seek}}?" asked $hero.

$Pal {{smiled for the first time|nodded}}. They played hide and seek $at. {{$Pal was very good at hiding.|Nobody could find $pal behind $see.}}
{{Then they sat in the grass and ate some $fruit.|After the game they shared some $food.}}
"{{Where I come from, we tell stories in the evening|I know a game, too}}," said $pal. {{"Will you show us?" asked $hero.|"Please tell us!" said $hero.}}

%Later $pal was not lonely any more. {{$Phe had many friends, and the first of them was $hero.|The whole town knew $phim.}}
{{And when a new $small came to school, it was $pal who said hello first.|"One word was enough," $phe often said. "It was hello."}}
""".replace("a new $small came to school", "somebody new came to town"))

plot("a magic $thing", "Be careful what you wish for.",
     """How many wishes did $hero have? => $Hero had three wishes.
What was magic? => The $col $thing was magic.
What was the last wish? => The last wish was that everything should be as before.""", f"""
%Time, $intro found a $col $thing $at. When $he {{touched|cleaned}} it, it began to {{shine|speak}}.
"I am a magic $thing," it said. "You have three wishes. {{Think well|Choose well}}!"
$Hero was %happy. {{$He did not think for long.|"Three wishes!" $he shouted.}}

"I wish for a mountain of $food!" $he said. Puff! $Food lay everywhere. {{The whole house was full, and $he could not find the door.|There was so much that $he could not move.}}
"I wish that {{it was always summer|it never rained again}}!" $he said. {{Soon the flowers were dry and the river was empty.|Soon the grass became dry, and the animals were thirsty.}}
{{$Hero was %sad. $He had only one wish left.|"What have I done?" said $hero.}}

{{$He asked $pal, who was a very clever $pkind.|$He went to $pal, a wise $pkind.}} "{{What do you really need|What did you have before}}?" asked $pal.
{{$Hero thought about it for a long time.|$Hero was quiet for a while.}} Then $he took the $thing and said, "I wish that everything is as it was before."
{{And so it was.|The $thing went dark, and it was never magic again.}} {{$Hero sat down $at and was content.|But $hero had learned that $he already had everything $he needed.}}
""")

plot("a $small in a tall tree", "Asking for help is also brave.",
     """Which animal was in the tree? => A little $small was in the tree.
Who had a ladder? => $Elder had a ladder.
Who climbed up? => $Hero climbed up.""", f"""
{{%Time|One day}}, $hero heard somebody crying {{in the garden|in the street}}. It was $palintro.
"My little $small is up in the tall tree," said $pal. {{"It cannot come down!"|"It is afraid!"}}
$Hero {{looked up|looked at the tree}}. It was very {{high|tall}}. {{"I will get it," $he said bravely.|$He was a %trait $kind and wanted to help.}}
First $he {{jumped|tried to climb}}, but $he {{was too small|slipped and fell into the grass}}. {{Then $he called, but the $small did not move.|Then $he threw a rope, but it was too short.}}

"{{I cannot do it alone|We need help}}," said $hero. "Let us ask $elder. $Elder has a ladder."
{{They ran to the next house.|They hurried across the road.}} $Elder came with a long ladder and held it {{with both hands|very still}}.
{{Step by step|Slowly and carefully}} $hero climbed up. "Come here, little one," $he said. The $small {{jumped onto $his shoulder|came into $his arms}}.

When they were down again, $pal {{laughed and cried at the same time|hugged the $small}}. "%Thanks!" $phe said.
"{{Thank $elder, too|It was the ladder, and the three of us}}," said $hero.
{{Then $pal made $food for everybody.|They all drank tea and ate $food together.}}
""")

plot("a quarrel", "Saying sorry can be the start of something good.",
     """What was the quarrel about? => They both wanted the $col $thing.
Who said sorry first? => $Hero said sorry first.
Who were friends? => $Hero and $pal were friends.""", f"""
$Hero and $pal were good friends. $Hero was {{a|a %trait}} $kind, and $pal was {{a|a %trait}} $pkind. They {{played together every day|did everything together}}.
But %time they found a $col $thing $at. "It is mine!" said $hero. "I saw it first."
"No, it is mine!" said $pal. {{"I picked it up."|They pulled, one on each side.}} {{They shouted at each other.|Nobody wanted to give in.}}
{{In the end they both went home angry.|At last they ran home, one to the left and one to the right.}}

$Hero sat {{at home|in $his room}} with the $thing. {{$He tried to $use, but it was no fun alone.|But it was no fun without $pal.}}
{{"Why are you so quiet?" asked $elder.|$Elder saw $his face and sat down beside $him.}} $Hero told $elder everything.
"What is more important," asked $elder, "the $thing or your friend?"
{{Hero did not need to think.|That was an easy question.}}

$He ran all the way to $pal. "I am sorry," $he said. "You can have the $thing."
"I am sorry, too," said $pal. {{"Let us share it."|"You can have it today, and I will have it tomorrow."}}
{{They both laughed.|And so they did.}} {{The $thing was nice, but to be friends again was much nicer.|Then they went out and played until dark.}}
""".replace("Hero did not need to think.", "$Hero did not need to think."))

plot("a star that fell from the sky", "Some things are too beautiful to keep.",
     """What did $hero find? => $Hero found a little star.
Why was the star sad? => The star was sad because it missed the sky.
Who helped $hero to send the star home? => $Pal helped $hero.""", f"""
One {{clear|cold|quiet}} night, $intro was looking at the stars. Suddenly one of them fell down. {{It landed $at.|It fell like a drop of light.}}
$Hero {{ran outside|put on $his coat}} and looked for it. Near $see lay a little star. It was {{warm and bright|small and golden}}.
"{{How pretty you are|You are so beautiful}}!" said $hero. $He took it home and put it {{on the window|next to $his bed}}.

But the star {{became darker every night|did not shine any more}}. "Why are you so sad?" asked $hero.
"I miss the sky," {{whispered|said}} the star. {{"My sisters are up there."|"I am alone here."}}
{{$Hero wanted to keep it, but $he also wanted it to be happy.|$Hero thought about it all night.}} In the morning $he went to $his friend $pal, a %trait $pkind.
"{{How can we send a star back to the sky|Do you have an idea}}?" $he asked.
$Pal had an idea. "{{We need the highest hill and a kite|We tie it to my biggest balloon}}," $phe said.

That night they climbed the hill. {{The wind was strong.|The wind was just right.}} Up and up went the star, until it was {{home again|only a small light}}.
{{Now, when $hero looks up, one star always winks at $him.|"Goodbye!" called $hero, and the star shone brighter than all the others.}}
""")

plot("a lonely dragon", "Do not judge others by how they look.",
     """Who was everyone afraid of? => Everyone was afraid of the dragon.
What was wrong with the dragon? => The dragon had a cold.
What did $hero bring to the dragon? => $Hero brought hot soup to the dragon.""", f"""
{{Near the town of $town|High above the town of $town}} there lived a big $col dragon. Everyone was afraid of it. {{At night they heard loud noises and saw smoke.|"It will burn our houses," they said.}}
Only $intro was curious. "{{Has anyone ever talked to it|Why does it make such noises}}?" $he asked. Nobody knew.
So %time $he {{took some bread|took a lamp}} and climbed up to the cave.

Inside sat the dragon. Its eyes were {{red|wet}}, and its nose was {{red|running}}. "Achoo!" it {{said|went}}, and a cloud of smoke came out.
"{{You have a cold|You are ill}}!" said $hero.
"Yes," said the dragon. {{"I have had it for a hundred years, and nobody helps me."|"And I am so alone."}}
$Hero ran home and {{cooked|made}} a big pot of hot soup. {{$Pal, a strong $pkind, helped $him to carry it.|It took $him an hour to carry it up the hill.}} The dragon {{ate it all|drank the soup}} and felt better at once.

{{Now the people saw that the dragon was friendly.|$Hero brought the dragon to $town, and nobody ran away.}} In winter it {{lit the fires|kept the houses warm}}, and {{in summer it gave rides to the children|on holidays it made fireworks}}.
{{And it was never lonely again.|"One bowl of soup," said the dragon, "and I have a hundred friends."}}
""")

plot("a robot that wanted to laugh", "Joy is learned from friends.",
     """What could the robot not do? => The robot could not laugh.
Who built the robot? => $Elder built the robot.
Who made the robot laugh? => $Hero made the robot laugh.""", f"""
{{In a small workshop in $town|In a house full of wheels and wires}}, $elder built a $look robot. It could {{cook and clean|count to a million}}, but it could not laugh.
"{{What is a joke|Why do people laugh}}?" the robot asked every day. Nobody could explain it.
%Time, $intro came to visit. "I will teach you," $he said.

First $he told it a joke. "{{Why did the banana go to the doctor? Because it did not peel well|What is orange and sounds like a parrot? A carrot}}." The robot did not laugh. {{"Bananas do not go to doctors," it said.|"That is not correct," it said.}}
Then $he {{made a funny face|danced like a duck}}. {{"Is something wrong with you?" asked the robot.|The robot only blinked.}}
{{$Hero sat down. "I give up," $he said, and put $his hand into a bowl of jam.|$Hero turned around, slipped and sat down in a bowl of jam.}}
{{There was a strange sound.|Then something began to shake.}} Ha! Ha, ha! The robot was laughing!

"{{That is funny|Now I understand}}," it said. {{"Please do it again!"|"It is because I like you."}}
{{$Hero laughed, too, and so did $elder.|They laughed until the windows shook.}}
From that day on the robot laughed every day, {{most of all at breakfast when there was jam|and $hero came to visit every week}}.
""")

plot("a broken bridge", "A good idea is stronger than strong arms.",
     """What was broken? => The bridge was broken.
Who had the good idea? => $Hero had the good idea.
What did they use for the new bridge? => They used an old tree for the new bridge.""", f"""
{{After the heavy rain|After a stormy night}} the bridge over the river was broken. {{Nobody could get to the market.|The people of $town could not cross the river.}}
The strongest people came together. They {{threw stones into the water|pushed and pulled}}, but the water {{carried everything away|was too fast}}.
$Intro stood there and watched. "{{May I say something|I have an idea}}," $he said.
"You are too small," {{they said|said $elder}}. {{"Go home and play."|"This is work for strong people."}}

But $hero had seen {{something|how the beavers work}}. {{On the bank stood an old dry tree.|An old dry tree stood near the water.}} "If we cut it on this side," $he said, "it will fall across the river."
{{$Pal, a %trait $pkind, heard $him. "It could work," said $pal.|"Let us try it," said $pal, a %trait $pkind.}}
They {{cut and cut|worked for two hours}}. {{The tree shook.|There was a loud crack.}} Then it fell, and it lay from one side to the other. It was a bridge!

{{Everyone cheered.|The people were %happy.}} "We looked only at our arms," said $elder, "but you used your head."
{{The bridge is still there, and people call it the bridge of $hero.|They put a sign on the bridge with the name of $hero.}}
""")

plot("a music festival", "Everyone has something special to give.",
     """What did $hero play? => $Hero played the drum.
What was $pal's talent? => $Pal could whistle.
Where was the festival? => The festival was in $town.""", f"""
There was going to be a big festival in $town. {{Everyone wanted to make music.|All the friends wanted to play a song.}}
$Hero, a %trait $kind, played the drum. {{Others played the flute and the piano.|Others sang.}} Only $pal was %sad.
"What can I do?" asked $pal. "I {{cannot sing|have no instrument}}. I am only a $pkind."
"{{Everyone can do something|We will find something}}," said $hero.

They tried {{the piano, but it was too loud|the flute, but no sound came out}}. They tried {{the guitar, but a string broke|singing, but it sounded like an old door}}. $Pal {{sat down|went outside}} and, because $phe was {{sad|thinking}}, $phe began to whistle.
It was {{clear and sweet|as soft as the wind}}. {{Even the birds stopped to listen.|$Hero stopped playing and listened.}}
"{{That is it|You can whistle}}!" {{cried|shouted}} $hero. "Nobody else can do that!"

On the day of the festival, $hero played the drum, and $pal whistled. {{The whole town listened and then clapped for a long time.|People danced until midnight.}}
"{{I only had to stop trying to be like the others|So that is my instrument}}," said $pal and {{laughed|smiled}}.
%ending
""")

plot("a snowman", "Even when something ends, it can come back.",
     """What did $hero and $pal build? => They built a snowman.
What was the nose of the snowman? => The nose was a carrot.
Why did the snowman melt? => It melted because the sun became warm.""", f"""
{{In the night a lot of snow had fallen.|One winter morning everything was white.}} $Hero, a %trait $kind, {{jumped out of bed|looked out of the window}}. "Snow!" $he {{cried|shouted}}.
$He called $his friend $pal, a %trait $pkind, and together they built a snowman. {{They made three big balls of snow.|First they made a big ball, and then two smaller ones.}}
A carrot was the nose, and two {{stones|buttons}} were the eyes. $Pal gave it $phis $col {{scarf|hat}}. "{{Now it looks like $elder|It is perfect}}!" $phe said, and they laughed.
They called the snowman {{Mr. Winter|Mr. White|Old Frost}}.

Every day they {{came to visit it|said good morning to it}}. But {{in March|after some weeks}} the sun became warm, and the snowman became {{smaller and smaller|thin}}.
{{One day only the carrot and a little water were left.|One morning it was gone.}} $Pal began to cry.
"{{Do not be sad|Do not cry}}," said $hero. "It is only {{water|on a journey}} now. It will go {{into the river and up to the clouds|up to the sky}}, and next winter it will come back as snow."

{{And so it was.|$Hero was right.}} {{The next winter they built a new one, even bigger.|When the first snow fell, they ran out with a carrot.}}
"Welcome back," said $pal {{and gave it the $col scarf|and laughed}}.
""".replace("{{scarf|hat}}", "scarf").replace("{scarf|hat}", "scarf"))

plot("a letter", "A promise should be kept.",
     """What did $hero carry? => $Hero carried a letter.
Who was the letter for? => The letter was for $pal.
Who gave $hero the letter? => $Elder gave $hero the letter.""", f"""
%Time, $elder gave $intro an important letter. "Bring it to $pal," $elder said. {{"It must be there before the sun goes down."|"Do not stop on the way."}}
"I promise," said $hero, and $he {{put it into $his bag|set off at once}}.
The way was long. First $he came to a place with $see. {{There some friends were playing %game. "Come and play with us!" they called.|"Stay a little," called a friend. "I have some $food."}}
$Hero {{wanted to stay|was hungry}}, but $he said, "{{Not now|Later}}! I made a promise."

Then it began to rain, and the path was {{muddy|full of water}}. $He put the letter under $his coat {{to keep it dry|and went on}}.
{{At the river the bridge was narrow, but $he did not turn back.|In the dark wood $he sang a song to be less afraid.}}
The sun was {{almost down|low}} when $he {{knocked at|came to}} the door. $Pal, a {{kind|friendly}} $pkind, opened it. "A letter for me?" $phe {{said|asked}}.

$Pal read it, and $phis eyes became {{bright|wet}}. "It is from my {{brother|sister}}," $phe said. "{{We have not seen each other for ten years, and now there will be a visit|Tomorrow there will be a visit after all these years}}!"
{{$Phe gave $hero a dry coat and a bowl of hot soup.|$Phe made a fire, and $hero ate $food and slept in a soft bed.}}
{{"You kept your promise," said $elder later, and $hero was proud.|$Hero was glad that $he had not stopped on the way.}}
""")

plot("a $kind who was always in a hurry", "Sometimes slow is faster.",
     """What was $hero always? => $Hero was always in a hurry.
Who told $hero to slow down? => $Pal told $hero to slow down.
What did $hero forget? => $Hero forgot the $thing.""", f"""
{OPEN} {BORN} who was always in a hurry. $He {{ate fast, talked fast and ran everywhere|never had time}}.
"Slow down," said $pal, a {{wise|patient}} $pkind. {{"You miss so much."|"The day has enough hours."}}
"{{No time, no time|I cannot|Later, later}}!" $hero {{called|shouted}} and was gone.

%Time, $he wanted to go to a party $at. $He {{ran out of the house|jumped up}} so fast that $he forgot the $col $thing, which was {{the present|a present}}.
{{Halfway $he remembered it and ran back.|So $he had to go all the way back.}} Then $he took the wrong road. {{Then $he fell into the mud.|Then $he lost a shoe.}}
When $he came at last, {{the cake was gone|everyone was going home}}. And who {{sat there|was there}}, calm and happy? It was $pal!
"{{How did you get here before me|But you are so slow}}!" said $hero.
"{{I walked|I started and did not stop}}," said $pal. {{"I saw $see and $see2 on the way."|"One step and then the next."}}

{{$Hero had to laugh.|$Hero thought about it.}} On the way home $he walked {{slowly beside $pal|very slowly}}. {{For the first time $he saw the stars above the road.|$He had never seen how beautiful the way was.}}
%ending
""")

plot("a day at the market", "It is good to look twice before you buy.",
     """What did $hero have to buy? => $Hero had to buy some $fruit.
Where was the market? => The market was in $town.
How many coins did $hero have? => $Hero had $n coins.""", f"""
%Time, $elder gave $hero $n coins. "Please go to the market in $town and buy some $fruit," $elder said.
$Hero was a %trait $kind, and {{$he had never gone alone before|this was the first time alone}}. {{$He held the coins tightly in $his hand.|$He was a little nervous.}}
At the market there were {{so many people|so many colours and smells}}. {{A man sold $col birds.|A woman sold $food.}}
A {{tall|thin}} man with a $col hat called, "Buy my $fruit, they are the best in the world!" {{They were very shiny.|They looked perfect.}} But $hero looked {{twice|closely}}. {{They were made of wax!|Under the shiny ones lay the old ones.}}
"No, thank you," said $hero {{and went on|politely}}.

In the last row sat $palintro. {{$Phis $fruit were small, but they smelled sweet.|"Try one," said $pal. It was sweet and fresh.}}
"I will take these," said $hero. $He paid and {{even had one coin left|said thank you}}.
{{$Pal put one more into the bag. "For a good customer," $phe said.|They talked for a while and became friends.}}

At home $elder {{tasted the $fruit|looked into the bag}}. "{{Well done|These are very good}}," $elder said. {{"You have good eyes."|"Tomorrow you can go again."}}
{{Together they made a pie.|$Hero was %happy.}}
""")
