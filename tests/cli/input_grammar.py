"""A grammar of hostile input: command lines of every verb, and sweep files with every key of the config classes.

The verbs, options and arguments come from the click commands, the keys from the config classes and registries. A new
verb, option, key or class is therefore covered without a change of this file.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from hypothesis import strategies as st

from orchestrator.cli.arguments import WordsArgument
from orchestrator.cli.verb_table import VERBS, load_command
from orchestrator.spec.sweep_config import _TypedSections
from supsup_core.datasets import BASES
from supsup_core.methods import METHODS
from supsup_core.nets import NETS
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS
from supsup_core.registry import Registry
from supsup_core.tasks import BENCHMARKS

COMPONENTS: dict[str, Registry[type[Any]]] = {
    "method": METHODS, "net": NETS, "benchmark": BENCHMARKS, "benchmark.base": BASES, "allocation": ALLOCATION_TESTS,
}  # fmt: skip
"""The registries, by the key whose `name` selects a class."""

BOMB = "{x: &a [1, 1, 1, 1, 1, 1, 1, 1], " + ", ".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
) + "}"  # fmt: skip

NUMBERS = (
    "-1", "0", "1", "2", "3", "0.5", "1e-4", "1e-320", "1e30", "1e308", "-1e308", "1e400", ".nan", ".inf", "-.inf",
    "-0.0", "2147483648", "9223372036854775807", "9223372036854775808", "1000000000000000000", "9" * 40, "9" * 5000,
    "0x" + "f" * 5000, "0b1", "0o17", "017", "1_000", "190:20:30",
)  # fmt: skip
TEXTS = (
    "=1+1", "+1", "@SUM(A1)", "-x", "'=x'", '"\\e[31mred\\e[0m"', '"\\r\\n"', '"a\\nb"', '"\\ud800"', '"\\0"',
    '"\\u202e"', "'<script>alert(1)</script>'", "'|'", "../../x", "/dev/zero", "~", "'~root'", "''", "???", "${name}",
    "$HOME", "null", "on", "no", "2024-01-05", "2024-13-45", "2024-01-01T00:00:00Z", "12:30", "é", "'🦊'", "x" * 300,
    "x" * 5000, "a b", "cuda", "GNu", "'%s%n'", "{0}",
)  # fmt: skip
STRUCTURES = (
    "[]", "{}", "[[]]", "[null]", "{null: 1}", "{1: 2}", "{[1]: 2}", "{a: 1, a: 2}", "&a [*a]", "&a {b: *a}", "*x",
    "!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]",
    "!!python/object:os.system x", "!foo 1", "[1, [2, [3]]]", "{a: {b: {c: 1}}}", "[" * 300 + "]" * 300,
    "{a: " * 90 + "1" + "}" * 90, BOMB, "[", "a: b: c", "{<<: {a: 1}}", "{name: supsup}", "{name: digits}",
    "{name: 5}", "{name: [a]}", "[" + "1, " * 3000 + "1]", "[" + ", ".join(map(str, range(2000))) + "]",
    "{low: 0, high: 1}", "{low: 1.0e-5, high: 1.0, log: true}",
)  # fmt: skip

HOSTILE = st.sampled_from([*NUMBERS, *TEXTS, *STRUCTURES]) | st.text(max_size=8) | st.integers().map(str)
"""Values that YAML, OmegaConf or Python may trip over, as YAML texts."""


EVERY_VALUE = tuple(value for value in (*NUMBERS, *TEXTS, *STRUCTURES) if value.isprintable() or value == " ")
"""The hostile values that are the same on every run."""


@dataclass(frozen=True)
class Key:
    """A key of a sweep file, by its dotted name, and valid values of it as YAML texts.

    section, owner: if the key is a field of a registered class, the section and the class's name, else "".
    """

    name: str
    valid: tuple[str, ...]
    section: str = ""
    owner: str = ""


def _valid(kind: object) -> tuple[str, ...]:
    """Returns valid values of a field of this type, as YAML texts."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return tuple(value for one in arguments for value in _valid(one))
    if origin is Literal:
        return tuple(map(str, arguments))
    by_kind: dict[object, tuple[str, ...]] = {
        int: ("1", "2", "3", "10"), float: ("0.5", "1", "1.0e-3"), bool: ("true", "false"), str: ("x",),
        type(None): ("null",),
    }  # fmt: skip
    if kind in by_kind:
        return by_kind[kind]
    if (origin or kind) in (list, tuple):
        return tuple(f"[{value}]" for value in (_valid(arguments[0]) if arguments else ("1",)))
    return ("{}", "null")


def _fields(cls: type[Any], prefix: str) -> list[Key]:
    """Returns the keys of a config class and of the config classes in its fields."""
    found = []
    hints = get_type_hints(cls)
    for field in fields(cls):
        kind = hints[field.name]
        inner = next((one for one in (kind, *get_args(kind)) if isinstance(one, type) and is_dataclass(one)), None)
        found.append(Key(f"{prefix}{field.name}", _valid(kind)))
        if inner is not None:
            found += _fields(inner, f"{prefix}{field.name}.")
    return found


def all_keys() -> list[Key]:
    """Returns every key of a sweep file, with the fields of every registered class of this project."""
    found = {key.name: key for key in _fields(_TypedSections, "")}
    for section, registry in COMPONENTS.items():
        found[f"{section}.name"] = Key(f"{section}.name", tuple(registry.names()))
        for name in registry.names():
            if registry[name].__module__.startswith("supsup_core."):
                for key in _fields(registry[name], f"{section}."):
                    found[f"{key.name} {name}"] = replace(key, section=section, owner=name)
    return list(found.values())


KEYS = all_keys()

BASE_FILES: tuple[dict[str, str], ...] = (
    {"scenario": "GG"},
    {"scenario": "GNu", "grid": "{inference.objective: [H, G]}", "seeds": "[0, 1]"},
    {"scenario": "NNs", "stream": "{segment_batches: 2}", "training": "{num_batches: 4, batch_size: 128}"},
    {"search": "{space: {training.learning_rate: [1.0e-4, 1.0e-3]}}"},
    {"variants": "{A: {method: {name: supsup}}, B: {method: {name: batch_e}}}", "scales": "{s: {seeds: [1]}}"},
)
"""Valid sweep files, without the settings that all of them share."""

SHARED = {
    "benchmark": "{name: permuted, base: digits, num_tasks: 2}",
    "net": "{name: lenet_300_100, num_outputs: 20}",
    "training": "{num_batches: 4, batch_size: 16}",
    "inference": "{strict_images: 4}",
}

WHOLE_FILES = (
    b"", b"\n", b"- 1", b"null", b"\xff\xfe\x00", b"\x00", b"name: x", b"a: b: c", b"\tname: x", b"%YAML 9.9\n---\n",
    b"--- 1\n--- 2", b"- " * 50_000, b"? " * 5_000, b"#" * 400_000, b"[" * 100_000, "net: {name: é}".encode("utf-16"),
    b"net:\n <<: *x\n", b"".join(b" " * depth + b"net:\n" for depth in range(500)), b"net: 1\n" * 30_000,
    b"- 1\n" * 60_000,
)  # fmt: skip
"""Contents of files that are no sweep file."""

PATHS = (
    "runs", "new", "a b", "a#b?c%41", "ünï", "x" * 255, "x" * 256, "y/" * 3000, "../outside/y", ".", "", "file.txt",
    "fifo", "/dev/null", "/dev/zero", "/proc/self/mem", "/sys/x", "dangling", "loop", "~", "~nobody_at_all/x",
    "2024_01", "a\nb", "-x", "\udcff", "runs/../new", "\u202e", "file.txt/x", "runs/sweeps", "null", "'quoted'",
    "[x]", "\x1b[31m", "sub",
)  # fmt: skip
"""Paths relative to the working folder, which tests/cli/fuzzing.py prepares."""

ADDRESSES = (
    "",
    "x",
    "127.0.0.1:9",
    "http://127.0.0.1:9",
    "..:1",
    "ray://x",
    ":²",
    "[::1",
    "http://[",
    "127.0.0.1:" + "9" * 5000,
)

NAMES = (
    "small",
    "small-",
    "GG",
    "GG seed=0",
    "GNu seed=0 entropy",
    "nothing",
    "",
    "*",
    "../x",
    "\x1b[31m",
    "a\nb",
    "--",
    "é",
)


@st.composite
def values(draw: st.DrawFn, key: Key) -> str:
    """Draws a value of a key as a YAML text: a valid one, or a hostile one."""
    return draw(st.sampled_from(key.valid) | st.sampled_from(key.valid) | HOSTILE)


@st.composite
def settings(draw: st.DrawFn) -> tuple[str, str]:
    """Draws a key and a value. The key may be a key of the grid, of a variant or of the search space."""
    key = draw(st.sampled_from(KEYS))
    value = draw(values(key))
    place = draw(st.sampled_from(["", "", "", "grid.", "variants.A.", "search.space.", "scales.s."]))
    if place in ("grid.", "search.space."):
        value = f"[{value}, {draw(values(key))}]"
    if key.owner and place not in ("grid.", "search.space.") and draw(st.booleans()):
        return f"{place}{key.section}", f"{{name: {key.owner}, {key.name.removeprefix(f'{key.section}.')}: {value}}}"
    odd = [f"{key.name}x", f"{key.name}.", f"{key.name}[0]", f".{key.name}", f"{key.name}.x", "", "a b", "\x1b[31m"]
    name = draw(st.sampled_from([key.name] * 40 + odd))
    return f"{place}{name}", value


def _path(name: str) -> list[str]:
    """Returns the keys of nested mappings that lead to a dotted key."""
    for section in ("grid", "search.space"):
        if name.startswith(f"{section}."):
            return [*section.split("."), name.removeprefix(f"{section}.")]
    return name.split(".")


def _nested(node: dict[str, Any], path: list[str], value: str) -> None:
    """Sets the value at a path of keys. Replaces a text on the way by a mapping."""
    for part in path[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[path[-1]] = value


def _written(node: dict[str, Any] | str) -> str:
    """Returns a mapping of texts as YAML in flow style. Values are written as they are."""
    if isinstance(node, str):
        return node
    return "{" + ", ".join(f"{key}: {_written(value)}" for key, value in node.items()) + "}"


@st.composite
def sweep_files(draw: st.DrawFn) -> bytes:
    """Draws the content of a sweep file: one with a few hostile settings, or no sweep file at all."""
    if draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(WHOLE_FILES))
    node: dict[str, Any] = {**SHARED, **draw(st.sampled_from(BASE_FILES))}
    for name, value in draw(st.lists(settings(), max_size=2)):
        _nested(node, _path(name), value)
    text = "".join(f"{key}: {_written(value)}\n" for key, value in node.items())
    return text.encode("utf-8", "surrogatepass")


def _typed(text: str) -> str:
    """Returns a text as a command line can hold it: without null characters and lone surrogates."""
    return (
        text.replace("\0", "")
        .encode("utf-8", "replace" if "\udcff" not in text else "surrogateescape")
        .decode("utf-8", "surrogateescape")[:100_000]
    )


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """Draws an override, or a text that is none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(HOSTILE)
    name, value = draw(settings())
    return f"{name}={value}"


@st.composite
def _option(draw: st.DrawFn, option: click.Option) -> list[str]:
    """Draws an option of a verb with its value, or nothing."""
    if draw(st.integers(0, 3)):
        return []
    name = draw(st.sampled_from(option.opts))
    if option.is_flag:
        return [name]
    known = ("1", "2", "GG") if option.name != "address" else ADDRESSES
    return [name, draw(st.sampled_from(known) | st.sampled_from(known) | HOSTILE)]


@st.composite
def _argument(draw: st.DrawFn, argument: click.Argument) -> list[str]:
    """Draws the words of an argument of a verb."""
    paths = st.sampled_from(["runs"] * len(PATHS) + list(PATHS))
    if isinstance(argument, WordsArgument):
        fitting = ["small"] if argument.noun == "sweep" else ["GG", "GNu", "GNu seed=0"]
        count = draw(st.sampled_from([argument.least, argument.least or 1, 2, 0]))
        names = st.lists(st.sampled_from(fitting * 9 + list(NAMES)) | HOSTILE, min_size=count, max_size=count)
        given = [f"{key}={draw(paths)}" for key in argument.options if not draw(st.integers(0, 2))]
        few = 2 if argument.has_overrides else 0
        changes = st.lists(
            st.sampled_from(["inference.rule=binary", "inference.objective=G"]) | overrides(), max_size=few
        )
        return draw(st.permutations([*draw(names), *given, *draw(changes)]))
    if argument.nargs == -1:
        return draw(st.lists(paths.map("output={}".format) | overrides() | overrides(), max_size=2))
    if not argument.required and draw(st.booleans()):
        return []
    return [draw(st.sampled_from(["s.yaml"] * 2 * len(PATHS) + list(PATHS)))]


def _commands() -> dict[str, click.Command]:
    """Returns every command, by the words that name it."""
    found: dict[str, click.Command] = {}
    for verb in VERBS:
        command = load_command(verb)
        if isinstance(command, click.Group):
            found |= {f"{verb} {name}": inner for name, inner in command.commands.items()}
        else:
            found[verb] = command
    return found


COMMANDS = _commands()


@dataclass(frozen=True)
class Invocation:
    """A command line, without the program's name, and the content of the file s.yaml in the working folder."""

    words: tuple[str, ...]
    sweep_file: bytes


@st.composite
def invocations(draw: st.DrawFn) -> Invocation:
    """Draws an invocation of any verb."""
    name = draw(st.sampled_from([*COMMANDS, "plan", "plan", "sweep"]))
    words = name.split(" ")
    for parameter in COMMANDS[name].params:
        part = draw(_option(parameter) if isinstance(parameter, click.Option) else _argument(parameter))  # type: ignore[arg-type]
        words += part
    if name == "sweep" and draw(st.integers(0, 3)):
        words.append("--local")
    return Invocation(tuple(map(_typed, words)), draw(sweep_files()))


def only_key(key: Key, value: str) -> list[str]:
    """Returns overrides that set one key of a valid sweep, and what this key needs to have an effect."""
    search = ["search={space: {training.learning_rate: [0.1, 0.2, 0.3]}}"] if key.name.startswith("search.") else []
    nns = ["scenario=NNs", "stream.segment_batches=2"]
    if not key.owner:
        return [*search, *(nns if key.name.startswith(("stream", "budget")) else []), f"{key.name}={value}"]
    needed = {"hop_sup_sup": ["net={name: hopfield_mlp, width: 16, num_outputs: 10}"], "ratio": nns, "outlier": nns}
    given = ["scenario=GG"] if key.section == "method" and key.owner != "supsup" else []
    field = key.name.removeprefix(f"{key.section}.")
    return [*needed.get(key.owner, given), f"{key.section}={{name: {key.owner}, {field}: {value}}}"]
