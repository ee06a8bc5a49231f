"""The words and templates of the built-in stories, and the part of speech of every word."""

from collections.abc import Mapping

from cascaded_dllm.text.story_template import Lexicon

GIRLS = ("Anna", "Mia", "Lily", "Emma", "Clara", "Nora", "Ella", "Zoe")
BOYS = ("Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Hugo", "Jack")


def _weights(words: str) -> Mapping[str, int]:
    """The words of a class with their weights: "word*3" has the weight 3, "word" the weight 1."""
    pairs = (word.partition("*") for word in words.split())
    return {word: int(weight or 1) for word, _, weight in pairs}


def _agreeing(male: str, female: str) -> Mapping[str, str]:
    return dict.fromkeys(BOYS, male) | dict.fromkeys(GIRLS, female)


TEMPLATES = {
    "lost": (
        "There was {a} {trait:trait} {hero.boy} called {hero:name}. "
        "One {weather:weather} {time:time}, {hero.he} {lost:lose} {hero.his} {look:look} {thing:thing} near the "
        "{place:place}. {A} {other:nature} {animal:animal} {found:find} it and helped {hero.him}. "
        "{hero} {thanked:thank} the {animal} and they {played:play} {gladly:manner}."
    ),
    "present": (
        "Once {hero:name} and {friend:name} were {trait:trait} friends. "
        "One {weather:weather} {time:time} they {went:go} to the {place:place} and {found:find} {a} {look:look} "
        "{thing:thing}. They gave it to {a} {other:nature} {worker:worker}, who made them some {food:food}."
    ),
    "birthday": (
        "It was the birthday of {trait:trait} {hero:name}. {hero.His} {aunt:woman} gave {hero.him} {a} {look:look} "
        "{thing:thing}, and {hero.his} {uncle:man} made some {food:food}. Then {hero.he} {went:go} to the "
        "{place:place} and {played:play} {gladly:manner} with {a} {other:nature} {animal:animal}."
    ),
    "neighbours": (
        "Once {a} {trait:trait} {first:animal} and {a} {other:nature} {second:bird} lived near the {place:place}. "
        "One {weather:weather} {time:time}, the {first} {lost:lose} {a} {look:look} {thing:thing}. "
        "The {second} {found:find} it, and they {played:play} and {rested:rest} {gladly:manner}."
    ),
    "friend": (
        "My friend {hero:name} is {a} {trait:trait} and {more:mood} {worker:worker}. "
        "Last {season:season} {hero.he} {found:find} {a} {look:look} {thing:thing} near the {place:place}. "
        "{hero.His} {uncle:man} wanted the {thing}, but {hero} gave it to {hero.his} {other:nature} {animal:animal}."
    ),
    "friends": (
        "My friends {hero:name} and {friend:name} are {trait:trait} and {more:mood}. "
        "Last {season:season} they {found:find} {a} {look:look} {thing:thing} near the {place:place}. "
        "{A} {other:nature} {animal:animal} wanted the {thing}, so they shared it and {played:play} {gladly:manner}."
    ),
    "meeting": (
        "On {a} {weather:weather} {time:time}, {hero:name} {went:go} to the {place:place} with {hero.his} "
        "{other:nature} {animal:animal}. There {hero.he} met {friend:name}, {a} {trait:trait} {worker:worker} with {a} "
        "{look:look} {thing:thing}. They {played:play} {gladly:manner} while the {animal} {rested:rest}."
    ),
    "comfort": (
        "Poor {hero:name} was {sad:feeling} and {tired:state}, so {hero.his} {aunt:woman} gave {hero.him} {a} "
        "{look:look} {thing:thing} and some {food:food}. Then {a} {other:nature} {animal:animal} {went:go} from the "
        "{place:place} to see {hero}, and they {played:play} {gladly:manner}."
    ),
}

CLASSES = {
    "name": _weights(" ".join(GIRLS + BOYS)),
    "animal": _weights("fox*2 bear*2 mouse rabbit cat dog frog otter goat"),
    "bird": _weights("owl*2 duck*2 hen goose robin swan"),
    "worker": _weights("farmer baker sailor teacher painter doctor singer hunter"),
    "woman": _weights("mother*2 sister aunt grandmother"),
    "man": _weights("father*2 brother uncle grandfather"),
    "trait": _weights("kind brave clever happy honest curious eager polite"),
    "nature": _weights("small shy gentle lonely hungry young sleepy quiet"),
    "mood": _weights("cheerful proud calm busy patient funny loyal careful"),
    "look": _weights("red*2 blue*2 green golden silver white tiny shiny odd old pretty"),
    "thing": _weights("ball*2 kite*2 drum bell book*2 lamp key ring hat coin shell basket map flute"),
    "place": _weights("forest*2 garden river*2 hill lake field barn bridge mill cave castle beach"),
    "food": _weights("cake*2 bread*2 soup honey cheese pie tea"),
    "weather": _weights("sunny*2 rainy windy snowy foggy cold warm"),
    "time": _weights("morning*2 afternoon day*2 evening"),
    "season": _weights("spring summer autumn winter"),
    "feeling": _weights("sad bored scared worried"),
    "state": _weights("sick tired cold ill"),
    "go": _weights("walked*2 ran*2 hurried raced wandered marched"),
    "find": _weights("found*2 saw spotted noticed"),
    "lose": _weights("lost*2 dropped forgot"),
    "thank": _weights("thanked*2 hugged praised"),
    "play": _weights("played*2 danced*2 sang laughed"),
    "rest": _weights("talked swam jumped rested"),
    "manner": _weights("happily*2 merrily gladly together*2 again outside"),
}

# Each class of words has one part of speech, and so has each fixed word; a capitalised word is a different word.
_CLASS_TAGS = {
    "NNP": ("name",),
    "NN": ("animal", "bird", "worker", "woman", "man", "thing", "place", "food", "time", "season"),
    "JJ": ("trait", "nature", "mood", "look", "weather", "feeling", "state"),
    "VBD": ("go", "find", "lose", "thank", "play", "rest"),
    "RB": ("manner",),
}
_CONTENT_TAGS = {
    "NN": "birthday boy friend girl",
    "NNS": "friends",
    "JJ": "Last Poor",
    "VBD": "gave helped lived made met shared wanted",
    "VBN": "called",
    "VB": "see",
    "RB": "Once Then",
}
# Words without content of their own. A verb among them is kept after every other word.
_STOP_TAGS = {
    "VBD": "was were",
    "VBZ": "is",
    "VBP": "are",
    "DT": "A An The a an some the",
    "CC": "and but",
    "CD": "One",
    "EX": "There",
    "IN": "On from near of so while with",
    "TO": "to",
    "PRP": "It They he him it she them they",
    "PRP$": "Her His My her his",
    "WP": "who",
    ".": ".",
    ",": ",",
}


def _tags() -> Mapping[str, tuple[str, bool]]:
    content = {word: tag for tag, words in _CONTENT_TAGS.items() for word in words.split()}
    content |= {word: tag for tag, names in _CLASS_TAGS.items() for name in names for word in CLASSES[name]}
    stop = {word: tag for tag, words in _STOP_TAGS.items() for word in words.split()}
    return {word: (tag, False) for word, tag in content.items()} | {word: (tag, True) for word, tag in stop.items()}


STORIES = Lexicon(
    templates=TEMPLATES,
    classes=CLASSES,
    forms={
        "he": _agreeing("he", "she"),
        "him": _agreeing("him", "her"),
        "his": _agreeing("his", "her"),
        "His": _agreeing("His", "Her"),
        "boy": _agreeing("boy", "girl"),
    },
    an_words=frozenset({"honest", "eager", "odd", "old"}),
    tags=_tags(),
)
