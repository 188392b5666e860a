"""Which emoji are objects of the world, and what captions call them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .concepts import Concepts
from .sources import code
from .world import WorldObject

SMALL_FILE = Path(__file__).with_name("objects_s.txt")


def _names(text: str) -> frozenset[str]:
    """The names in `text`, which commas and line ends part."""
    return frozenset(name.strip() for name in text.replace("\n", ",").split(",") if name.strip())


CATEGORIES = {
    "animal-mammal": "animal",
    "animal-bird": "bird",
    "animal-amphibian": "reptile",
    "animal-reptile": "reptile",
    "animal-marine": "sea animal",
    "animal-bug": "insect",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "food",
    "food-sweet": "dessert",
    "drink": "drink",
    "dishware": "kitchen tool",
    "place-map": "thing",
    "place-geographic": "landmark",
    "place-building": "building",
    "place-religious": "building",
    "place-other": "landmark",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "transport-air": "aircraft",
    "hotel": "thing",
    "time": "clock",
    "sky-weather": "weather symbol",
    "event": "party thing",
    "award-medal": "medal",
    "sport": "sports thing",
    "game": "toy",
    "arts-crafts": "craft thing",
    "clothing": "garment",
    "sound": "device",
    "music": "device",
    "musical-instrument": "instrument",
    "phone": "device",
    "computer": "device",
    "light-video": "device",
    "book-paper": "book",
    "money": "thing",
    "mail": "thing",
    "writing": "tool",
    "office": "office thing",
    "lock": "lock",
    "tool": "tool",
    "science": "tool",
    "medical": "medical thing",
    "household": "household thing",
    "other-object": "thing",
}
"""Unicode subgroup -> category. A subgroup that is not here has no objects in the world."""

OTHER_CATEGORY = {
    "animal": _names("snail, spider, scorpion, worm, frog, t-rex"),
    "fish": _names("fish, tropical fish, blowfish, shark"),
    "fruit": _names("avocado"),
    "tree": _names("evergreen tree, deciduous tree, palm tree, christmas tree"),
    "thing": _names(
        """
        paw prints, feather, spider web, rosette, ice, anchor, ring buoy, brick, rock, wood, bus stop,
        oil drum, fuel pump, wheel, siren, traffic light, stop sign, construction barrier, parachute,
        barber pole, key, old key, bell, hair pick, lipstick, gem, ring, prayer beads, joker, dice,
        bullseye, crystal ball, bookmark, label, newspaper, scroll
        """
    ),
    "car": _names("car, suv, racing car, taxi, police car"),
    "truck": _names("truck, pickup truck, lorry, fire engine, ambulance"),
    "train": _names("locomotive, high-speed train, bullet train, train, metro, tram, monorail"),
    "planet": _names("globe, ringed planet"),
    "ball": _names(
        "soccer ball, baseball, basketball, volleyball, american football, rugby ball, eight ball"
    ),
    "shoe": _names(
        """
        flip flop, leather shoe, running shoe, hiking boot, flat shoe, high-heeled shoe, sandal
        ballet shoes, boot, roller skate, ice skate
        """
    ),
    "hat": _names("crown, sun hat, top hat, graduation cap, cap, army helmet, rescue helmet"),
    "bag": _names("purse, handbag, clutch bag, shopping bags, backpack, luggage, briefcase"),
    "lamp": _names("candle, light bulb, flashlight, paper lantern, diya lamp"),
    "furniture": _names("door, mirror, window, bed, couch and lamp, chair, bathtub"),
    "tent": _names("tent, circus tent"),
}
"""Category -> names, for objects that their subgroup's category does not suit."""

RENAMED = {
    "admission tickets": "tickets",
    "adhesive bandage": "bandage",
    "articulated lorry": "lorry",
    "automobile": "car",
    "baby chick": "chick",
    "baguette bread": "baguette",
    "billed cap": "cap",
    "black nib": "pen nib",
    "bottle with popping cork": "champagne bottle",
    "carpentry saw": "saw",
    "cheese wedge": "cheese",
    "closed book": "red book",
    "closed mailbox with raised flag": "mailbox",
    "cloud with lightning and rain": "thunderstorm",
    "cloud with rain": "rain cloud",
    "cloud with snow": "snow cloud",
    "cloud with lightning": "storm cloud",
    "construction": "construction barrier",
    "cooking": "fried egg",
    "cut of meat": "steak",
    "delivery truck": "truck",
    "ear of corn": "corn",
    "fish cake with swirl": "fish cake",
    "flying disc": "frisbee",
    "fork and knife with plate": "dinner plate",
    "framed picture": "picture frame",
    "game die": "dice",
    "gem stone": "gem",
    "globe showing americas": "globe",
    "headphone": "headphones",
    "high voltage": "lightning bolt",
    "horse face": "horse head",
    "hot beverage": "coffee cup",
    "hourglass done": "hourglass",
    "lady beetle": "ladybug",
    "leaf fluttering in wind": "green leaves",
    "locked": "padlock",
    "magnifying glass tilted left": "magnifying glass",
    "man's shoe": "leather shoe",
    "martial arts uniform": "karate uniform",
    "military helmet": "army helmet",
    "musical keyboard": "piano",
    "one-piece swimsuit": "swimsuit",
    "1st place medal": "gold medal",
    "2nd place medal": "silver medal",
    "3rd place medal": "bronze medal",
    "optical disk": "compact disc",
    "page facing up": "sheet of paper",
    "pool 8 ball": "eight ball",
    "poultry leg": "chicken leg",
    "red paper lantern": "paper lantern",
    "rescue worker's helmet": "rescue helmet",
    "roll of paper": "toilet paper",
    "rugby football": "rugby ball",
    "running shirt": "sports shirt",
    "shallow pan of food": "paella pan",
    "sheaf of rice": "rice plant",
    "snowman without snow": "snowman",
    "sport utility vehicle": "suv",
    "teacup without handle": "cup",
    "thong sandal": "flip flop",
    "umbrella on ground": "beach umbrella",
    "vertical traffic light": "traffic light",
    "police car light": "siren",
    "woman's boot": "boot",
    "woman's clothes": "blouse",
    "woman's hat": "sun hat",
    "woman's sandal": "sandal",
    "wrapped gift": "gift",
}
"""Cleaned label -> what people say instead."""

LEFT_OUT = _names(
    """
    pig nose, front-facing baby chick, black bird, wing, microbe, wilted flower, leafless tree, empty nest
    clinking beer mugs, clinking glasses, pouring liquid, sake, mate
    globe showing europe-africa, globe showing asia-australia, globe with meridians, map of japan
    landslide, mount fuji, camping, beach with umbrella, desert, national park, snow-capped mountain, volcano
    building construction, houses, love hotel, japanese post office, wedding, kaaba
    foggy, night with stars, cityscape, sunrise over mountains, sunrise, cityscape at dusk
    sunset, bridge at night
    railway car, light rail, station, tram car, mountain railway, oncoming bus, oncoming police car
    oncoming taxi, oncoming automobile, motorway, railway track, horizontal traffic light, seat
    airplane departure, airplane arrival, small airplane, suspension railway, aerial tramway
    hourglass not done, timer clock
    new moon, waxing crescent moon, first quarter moon, waxing gibbous moon, full moon, waning gibbous moon
    last quarter moon, waning crescent moon, new moon face, first quarter moon face, last quarter moon face
    full moon face, sun behind small cloud, sun behind large cloud, milky way, fog, wind face
    cyclone, snowman
    umbrella with rain drops, glowing star, shooting star
    sparkles, reminder ribbon, ticket, moon viewing ceremony, tanabata tree
    spade suit, heart suit, diamond suit, club suit, flower playing cards, softball, goal net
    cricket game, tennis, field hockey, ice hockey
    muted speaker, speaker low volume, speaker medium volume, bell with slash, musical note
    mobile phone with arrow, low battery, computer disk, dvd, camera with flash, magnifying glass tilted right
    ledger, page with curl, rolled-up newspaper, bookmark tabs
    yen banknote, euro banknote, pound banknote, money with wings, chart increasing with yen
    e-mail, incoming envelope, envelope with arrow, outbox tray, inbox tray
    closed mailbox with lowered flag, open mailbox with raised flag, open mailbox with lowered flag
    memo, spiral calendar, tear-off calendar, open file folder, card index dividers, spiral notepad
    chart decreasing, linked paperclips, round pushpin
    unlocked, locked with pen, locked with key, hammer and pick, hammer and wrench, broken chain, chains
    drop of blood, crutch, elevator, bubbles, cigarette, coffin, headstone, funeral urn, hamsa, placard
    identification card, briefs, control knobs, level slider, petri dish, white cane
    """
)
"""Cleaned labels that make no object: scenes, signs, near-copies of others, and sad things."""

SAYABLE = re.compile(r"[a-z0-9][a-z0-9' -]*")


@dataclass(frozen=True)
class Entry:
    """One emoji of the catalogue."""

    thing: WorldObject
    code: str  # code points as `sources.code` spells them


def clean(label: str) -> str:
    """A CLDR label in lower case, without accents and typographer's apostrophes."""
    plain = unicodedata.normalize("NFKD", label.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).lower().strip()


def read_small(path: Path = SMALL_FILE) -> frozenset[str]:
    """The names of size s's objects: one a line."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return frozenset(line for line in lines if line)


def category(name: str, subgroup: str) -> str:
    """What the object `name` of Unicode's `subgroup` is one of."""
    for other, names in OTHER_CATEGORY.items():
        if name in names:
            return other
    return CATEGORIES[subgroup]


def mentions(text: str, words: Iterable[str]) -> bool:
    """Whether `text` has one of `words` (each a word or several) as a word of its own, also in the plural."""
    return any(re.search(rf"(?<![a-z]){re.escape(word)}(?:s|es)?(?![a-z])", text) for word in words)


def choose(
    records: Iterable[Mapping],
    subgroups: Mapping[int, str],
    drawn: Collection[Collection[str]],
    concepts: Concepts,
    small: Collection[str],
) -> list[Entry]:
    """The world's objects.

    Args:
        records: Emojibase's, with `label`, `hexcode`, `subgroup`, `tags`.
        subgroups: Unicode subgroups' names by number.
        drawn: for each style that the base is trained on, the code points it has a drawing of. Objects that
            one of them lacks are left out.
        concepts: whose objects are held out, whose twins are left out, and whose words no other object may
            use.
        small: the names of size s's objects.

    Raises:
        ValueError: two objects have one name, an object has a held-out one's name in its own, or a name that
            `concepts` or `small` lists is no object.
    """
    held_out = set(concepts.held_out_objects())
    banned = concepts.banned_words()
    entries: dict[str, Entry] = {}
    for record in records:
        subgroup = subgroups.get(record.get("subgroup", -1), "")
        label = clean(record["label"])
        if subgroup not in CATEGORIES or label in LEFT_OUT or "o'clock" in label or label.endswith("-thirty"):
            continue
        name = RENAMED.get(label, label)
        hexcode = code(record["hexcode"])
        if name in concepts.twins or any(hexcode not in style for style in drawn):
            continue
        if not SAYABLE.fullmatch(name):
            raise ValueError(f"captions cannot say {name!r}: give it another name in RENAMED.")
        if name in entries:
            raise ValueError(f"two objects are named {name!r}: rename one or leave it out.")
        if name not in held_out and mentions(name, banned):
            raise ValueError(f"{name!r} names something held out: list it in the concepts' twins.")
        tags = tuple(
            tag for tag in map(clean, record.get("tags", ())) if SAYABLE.fullmatch(tag) and tag != name
        )
        if name not in held_out:
            tags = tuple(tag for tag in tags if not mentions(tag, banned))
        thing = WorldObject(
            name=name,
            category=category(name, subgroup),
            keywords=tags,
            small=name in small and name not in held_out,
            held_out=name in held_out,
        )
        entries[name] = Entry(thing, hexcode)
    missing = sorted((held_out | set(small)) - set(entries))
    if missing:
        raise ValueError(f"no object is named {', '.join(missing)}: the lists and the catalogue disagree.")
    unclear = sorted(held_out & set(small))
    if unclear:
        raise ValueError(f"{', '.join(unclear)}: held out, and therefore not of size s's world.")
    return list(entries.values())
