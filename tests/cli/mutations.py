"""Recipes and options with random faults, each made from its seed alone."""

import copy
import io
import re
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from ruamel.yaml import YAML

from snflow.errors import SnflowError
from snflow.train.recipe import Recipe, available_recipes, load_recipe, read_yaml

FEW = ("digits_conv", "digits_glow_newton", "table_dense", "toy_maf", "toy_pair", "toy_umnn")
"""The recipes of the first 1,000 seeds. Each further 1,000 take the next six of the library: that needs few parsers."""

NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**64), 10**30, 10**400, 10**5000, 0.5, -0.0, 5e-324, 1e308, -1e-300)
ODD = (
    float("nan"),
    float("inf"),
    -float("inf"),
    None,
    True,
    False,
    "",
    " ",
    "nan",
    "1e400",
    "null",
    "yes",
    "0x10",
    "é",
)
MORE = (
    "\u202e",
    "\0",
    "\x85",
    "a\nb",
    "1_000",
    "[1",
    "{}",
    "!!int 3",
    "&a",
    "*a",
    "toy_maf",
    "toy_maf.yaml",
    "${seed}",
)
NESTED = (
    [],
    {},
    [[]],
    [None],
    {"name": "maf"},
    {"class_path": "Newton"},
    {"class_path": "os.system"},
    {"": ""},
    [1, "a"],
)
JUNK = (
    "",
    "\n",
    "  ",
    "\t",
    ":",
    ": ",
    "- ",
    "#",
    "'",
    '"',
    "[",
    "{",
    "&a ",
    "*a",
    "!!python/object:os.system ",
    "<<: ",
)
ODD_BYTES = (
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\r",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
)


def check_mutation(seed):
    """Change a recipe at random and load it: one line of ours refuses it, or it is read back from its own dump.

    Returns:
        Whether it was refused.
    """
    draw = Random(seed)
    name = draw.choice(_recipes(seed // 1000))
    content = copy.deepcopy(_content(name, draw.random() < 0.5))
    overrides = {}
    if draw.random() < 0.2:
        overrides = {_name(draw, content): copy.deepcopy(_value(draw)) for _ in range(draw.randint(1, 3))}
    else:
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            draw.choice(CHANGES)(draw, content)
    text = _dumped(content)
    for _ in range(draw.choice((0, 0, 0, 1, 2)) if not overrides else 0):
        text = draw.choice(EDITS)(draw, text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.yaml"
        path.write_bytes(text)
        try:
            recipe = load_recipe(path, overrides)
        except SnflowError as error:
            message = str(error)
            assert len(message.splitlines()) == 1, f"more than one line: {message!r}"
            place = r"mutated\.yaml(, line \d+|, [^:]+)?" if str(path) in message else r"^[^:]+"
            assert re.search(rf"{place}: expected .*, got .", message), f"neither a key nor a line: {message!r}"
            assert "options: expected" not in message, f"no key: {message!r}"
            return True
    again = Recipe.from_dict(read_yaml(recipe.to_yaml(), "dump"), "dump")
    assert again == recipe, "the dump is another recipe"
    assert again.digest() == recipe.digest(), "the dump has another hash"
    assert again.to_yaml() == recipe.to_yaml(), "the dump's dump differs"
    return False


@cache
def _recipes(block):
    names = sorted(available_recipes())
    return FEW if block == 0 else [names[(6 * block + at) % len(names)] for at in range(6)]


@cache
def _content(name, every_option):
    """A recipe of the library, as it is written or with every option."""
    return load_recipe(name).to_dict() if every_option else read_yaml(available_recipes()[name].read_text(), name)


def _dumped(content):
    text = io.BytesIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    try:
        yaml.dump(content, text)
    except ValueError:  # an integer with more digits than Python writes
        return b"flow: {name: maf, layers: 0x" + 5000 * b"f" + b"}"
    return text.getvalue()


def _value(draw):
    return draw.choice(draw.choice((NUMBERS, ODD, MORE, NESTED)))


def _section(draw, content):
    """A section that is a mapping with options, and its name; the whole recipe if there is none."""
    found = [(name, options) for name, options in content.items() if isinstance(options, dict) and options]
    return draw.choice(found) if found else ("", content)


def _name(draw, content):
    """The dotted name of an option, sometimes of one that does not exist."""
    section, options = _section(draw, content)
    word = draw.choice(list(options))
    return draw.choice(
        (f"{section}.{word}", f"{section}.{word}", f"{section}.{_misspelt(draw, word)}", section, word, ".")
    )


def _misspelt(draw, word):
    at = draw.randrange(len(word) + 1)
    return draw.choice((word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word.upper(), word + " ", "é" + word))


def retype(draw, content):
    """Another value, of any type."""
    _, options = _section(draw, content)
    if options:
        options[draw.choice(list(options))] = copy.deepcopy(_value(draw))


def nudge(draw, content):
    """Another value of the same type, which is often a good one."""
    _, options = _section(draw, content)
    for key in draw.sample(list(options), min(3, len(options))):
        if isinstance(options[key], bool):
            options[key] = draw.random() < 0.5
        elif isinstance(options[key], int | float):
            options[key] = type(options[key])(draw.choice((1, 1.5, 2, 3e-5, 7, 100, 0.1, -0.0)))


def misspell(draw, content):
    """Another key."""
    _, options = _section(draw, content)
    if options:
        key = draw.choice(list(options))
        options[_misspelt(draw, str(key))] = options.pop(key)


def delete(draw, content):
    """An option or a section less."""
    options = draw.choice((content, _section(draw, content)[1]))
    if options:
        options.pop(draw.choice(list(options)))


def move(draw, content):
    """An option or a section in a wrong place."""
    name, options = _section(draw, content)
    key = draw.choice(list(options)) if options else name
    target = draw.choice(list(content)) if content else name
    content[target] = draw.choice(({key: options.get(key)}, [options], {target: content.get(target)}, options.get(key)))


def rekey(draw, content):
    """A key that is no text."""
    _, options = _section(draw, content)
    options[draw.choice((1, 2.5, None, True, "", 10**30))] = copy.deepcopy(_value(draw))


CHANGES = (nudge, nudge, nudge, retype, retype, retype, misspell, delete, delete, move, rekey)


def insert(draw, text):
    """Syntax where none belongs."""
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(JUNK).encode() + text[at:]


def corrupt(draw, text):
    """Bytes that are no text."""
    at = draw.choice((0, draw.randrange(len(text) + 1)))
    return text[:at] + draw.choice(ODD_BYTES) + text[at:]


def cut(draw, text):
    """The beginning of a file."""
    return text[: draw.randrange(len(text) + 1)]


def reline(draw, text):
    """A line twice, moved or indented."""
    lines = text.splitlines(keepends=True) or [b"\n"]
    line = draw.choice(lines)
    at = draw.randrange(len(lines) + 1)
    changed = draw.choice((line, b"  " + line, line.lstrip(), b"\t" + line, line.rstrip() + b" &a\n"))
    return b"".join([*lines[:at], changed, *lines[at:]])


EDITS = (insert, insert, corrupt, cut, reline)
