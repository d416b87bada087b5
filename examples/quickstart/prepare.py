"""Write the data and the tokenizer of the quick start; needs no network and gives the same files every time.

    python examples/quickstart/prepare.py

The rows are small reading tasks about one or two sentences: who did what, where and when; the sentence in another
tense, in the passive, with the opposite adjective. Each answer follows from its prompt, and no prompt occurs twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SIZES = {"test": 60, "validation": 120, "train": 2400}
SEED = 2026
END = "<|endoftext|>"
# The prompt that `"template": "alpaca"` makes: its words, too, should be tokens.
PROMPT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}"
)


def entries(text: str) -> list[str]:
    """The parts of a list with commas."""
    return text.split(", ")


PEOPLE = entries(
    "baker, farmer, tailor, doctor, sailor, painter, lawyer, singer, dancer, driver, gardener, waiter, writer, pupil, "
    "neighbour, captain, nurse, guest, visitor, uncle, sister, brother, grandmother, child"
)
ACTIONS = {  # base form, past form: what it is done to
    "bake baked": "cake pie roll pizza",
    "wash washed": "plate shirt car towel",
    "paint painted": "door fence wall boat",
    "repair repaired": "bicycle clock engine roof",
    "sell sold": "book lamp carpet ring",
    "buy bought": "ticket hat guitar camera",
    "carry carried": "bag basket ladder table",
    "find found": "key coin map letter",
    "build built": "house bridge tower shed",
    "clean cleaned": "window floor oven mirror",
    "open opened": "gate parcel bottle drawer",
    "move moved": "chair desk piano sofa",
}
PAIRS = entries(
    "old new, big small, heavy light, clean dirty, cheap expensive, wet dry, hot cold, long short, thick thin, "
    "soft hard, wide narrow, dark bright"
)
OPPOSITES = {one: other for pair in PAIRS for one, other in (pair.split(), pair.split()[::-1])}
LOCATIONS = entries(
    "in the kitchen, at the market, near the river, behind the school, in the garden, at the station, "
    "beside the church, in the village, on the farm, at the harbour, near the forest, in the office, "
    "behind the library, at the hotel, beside the lake, in the museum"
)
DAYS = entries("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
TIMES = [f"on {day} {part}" for day in DAYS for part in ("morning", "afternoon", "evening")]
MANNERS = entries("quietly, slowly, quickly, carefully, happily, proudly, secretly, calmly")
NUMERALS = entries("two, three, four, five, six, seven, eight, nine")

Row = dict[str, str]


@dataclass(frozen=True)
class Event:
    """Somebody did something to a thing, somehow, somewhere, at some time."""

    person: str
    base: str
    past: str
    adjective: str
    noun: str
    manner: str
    location: str
    time: str

    @property
    def who(self) -> str:
        return f"The {self.person}"

    @property
    def thing(self) -> str:
        return f"the {self.adjective} {self.noun}"


def draw_events(draw: random.Random, count: int) -> list[Event]:
    """Events that share no person, verb, adjective, place or time."""
    people, actions = draw.sample(PEOPLE, count), draw.sample(list(ACTIONS), count)
    adjectives, locations, times = (draw.sample(list(values), count) for values in (OPPOSITES, LOCATIONS, TIMES))
    events = []
    for person, action, adjective, location, time in zip(people, actions, adjectives, locations, times, strict=True):
        base, past = action.split()
        noun, manner = draw.choice(ACTIONS[action].split()), draw.choice(MANNERS)
        events.append(Event(person, base, past, adjective, noun, manner, location, time))
    return events


def tell(event: Event) -> str:
    """One sentence with everything about the event."""
    return f"{event.who} {event.manner} {event.past} {event.thing} {event.location} {event.time}."


def ask_who(draw: random.Random) -> Row:
    first, second = draw_events(draw, 2)
    asked = draw.choice([first, second])
    question = draw.choice(["Who {0} the {1}?", "Name the person who {0} the {1}."]).format(asked.past, asked.noun)
    statements = [f"{event.who} {event.past} {event.thing}." for event in (first, second)]
    return row(question, " ".join(statements), f"{asked.who} {asked.past} {asked.thing}.")


def ask_what(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    question = draw.choice(["What did the {0} {1}?", "Which thing did the {0} {1}?"]).format(event.person, event.base)
    return row(question, tell(event), f"{event.who} {event.past} {event.thing}.")


def ask_where(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    question = draw.choice(["Where did the {0} {1} the {2}?", "In which place did the {0} {1} the {2}?"])
    answer = f"{event.who} {event.past} the {event.noun} {event.location}."
    return row(question.format(event.person, event.base, event.noun), tell(event), answer)


def ask_when(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    question = draw.choice(["When did the {0} {1} the {2}?", "On which day did the {0} {1} the {2}?"])
    answer = f"{event.who} {event.past} the {event.noun} {event.time}."
    return row(question.format(event.person, event.base, event.noun), tell(event), answer)


def ask_how(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    question = draw.choice(["How did the {0} {1} the {2}?", "In what way did the {0} {1} the {2}?"])
    answer = f"{event.who} {event.manner} {event.past} the {event.noun}."
    return row(question.format(event.person, event.base, event.noun), tell(event), answer)


def tell_future(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    task = draw.choice(["Rewrite the sentence in the future tense.", "Say that this will happen."])
    text = f"{event.who} {event.past} {event.thing} {event.location}."
    return row(task, text, f"{event.who} will {event.base} {event.thing} {event.location}.")


def tell_past(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    task = draw.choice(["Rewrite the sentence in the past tense.", "Say that this has already happened."])
    text = f"{event.who} will {event.manner} {event.base} {event.thing} {event.time}."
    return row(task, text, f"{event.who} {event.manner} {event.past} {event.thing} {event.time}.")


def turn_passive(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    task = draw.choice(["Turn the sentence into the passive voice.", "Begin the sentence with its object."])
    text = f"{event.who} {event.past} {event.thing} {event.location}."
    return row(
        task, text, f"The {event.adjective} {event.noun} was {event.past} by the {event.person} {event.location}."
    )


def turn_opposite(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    task = draw.choice(["Replace the adjective with its opposite.", "Use the opposite adjective in the sentence."])
    start, end = f"{event.who} {event.past} the", f"{event.noun} {event.location}."
    return row(task, f"{start} {event.adjective} {end}", f"{start} {OPPOSITES[event.adjective]} {end}")


def write_note(draw: random.Random) -> Row:
    (event,) = draw_events(draw, 1)
    task = draw.choice(["Turn the note into a sentence.", "Write one sentence from this note."])
    note = f"Person: the {event.person}. Action: {event.base} {event.thing}. Place: {event.location}."
    return row(task, note, f"{event.who} {event.past} {event.thing} {event.location}.")


def list_things(draw: random.Random) -> Row:
    events = draw_events(draw, 3)
    who, (first, second, third) = events[0].who, (event.noun for event in events)
    things = [event.thing for event in events]
    question = draw.choice(["List the things that the {0} sold.", "Which things did the {0} sell?"])
    text = f"{who} sold {things[0]}, {things[1]} and {things[2]}."
    return row(question.format(events[0].person), text, f"{who} sold the {first}, the {second} and the {third}.")


def count_things(draw: random.Random) -> Row:
    events = draw_events(draw, 2)
    who, numerals = events[0].who, draw.sample(NUMERALS, 2)
    counted = [f"{numeral} {event.adjective} {event.noun}s" for numeral, event in zip(numerals, events, strict=True)]
    asked = draw.randrange(2)
    question = draw.choice(["How many {1}s did the {0} find?", "Count the {1}s that the {0} found."])
    text = f"{who} found {counted[0]} and {counted[1]} {events[0].location}."
    return row(question.format(events[0].person, events[asked].noun), text, f"{who} found {counted[asked]}.")


def row(instruction: str, text: str, output: str) -> Row:
    """A row of the Alpaca form."""
    return {"instruction": instruction, "input": text, "output": output}


FAMILIES: tuple[Callable[[random.Random], Row], ...] = (
    ask_who,
    ask_what,
    ask_where,
    ask_when,
    ask_how,
    tell_future,
    tell_past,
    turn_passive,
    turn_opposite,
    write_note,
    list_things,
    count_things,
)


def make_rows(seed: int = SEED) -> dict[str, list[Row]]:
    """The rows of every split, all families in turn; prompts are distinct over all splits together."""
    draw = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    rows: list[Row] = []
    while len(rows) < sum(SIZES.values()):
        made = FAMILIES[len(rows) % len(FAMILIES)](draw)
        prompt = (made["instruction"], made["input"])
        if prompt not in seen:
            seen.add(prompt)
            rows.append(made)
    splits, start = {}, 0
    for name, size in SIZES.items():
        splits[name] = rows[start : start + size]
        start += size
    return splits


def train_tokenizer(rows: list[Row]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over the training text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROMPT.format(**row) for row in rows], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def main(folder: Path = HERE) -> None:
    """Write ``data/*.jsonl`` and ``tokenizer/`` into ``folder``."""
    splits = make_rows()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    tokenizer = train_tokenizer(splits["train"])
    tokenizer.save_pretrained(folder / "tokenizer")
    print(
        f"{folder}: {', '.join(f'{len(rows)} {name}' for name, rows in splits.items())} rows, {len(tokenizer)} tokens"
    )


if __name__ == "__main__":
    main()
