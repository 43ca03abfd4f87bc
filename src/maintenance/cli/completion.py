"""The scripts that complete commands and options in a shell, made from the parser."""

import argparse
from collections.abc import Iterator
from typing import Final, NamedTuple

from maintenance.cli.options import build_parser, list_options


class Word(NamedTuple):
    """An option or a command, and its help in one line."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    takes_value: bool = False


def list_words() -> dict[str, list[Word]]:
    """Return the words after each command. The words after "" are the commands."""
    parser = build_parser()
    [commands] = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]  # noqa: SLF001
    helps = {it.dest: it.help or "" for it in commands._choices_actions}  # noqa: SLF001
    words = {name: list(_list_options(command)) for name, command in commands.choices.items()}
    words["help"] += [Word(name, helps[name]) for name in commands.choices]
    words["completion"] += [Word(shell, "") for shell in SCRIPTS]
    return {"": [Word(name, helps[name]) for name in commands.choices], **words}


def _list_options(command: argparse.ArgumentParser) -> Iterator[Word]:
    for name, action in list_options(command).items():
        text = (action.help or "").replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
        yield Word(name, text, tuple(map(str, action.choices or ())), action.nargs != 0)


def render(shell: str) -> str:
    """Return the script for a shell of `SCRIPTS`."""
    return "\n".join(SCRIPTS[shell](list_words())) + "\n"


def _render_bash(words: dict[str, list[Word]]) -> Iterator[str]:
    yield "_maintenance() {"
    yield "  local word command= current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="
    yield '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield f"    case $word in {'|'.join(filter(None, words))}) command=$word; break ;; esac"
    yield "  done"
    yield '  case "$command $before" in'
    for command, name, choices in _list_choices(words):
        yield f'    "{command} {name}") words="{" ".join(choices)}" ;;'
    for command, its in words.items():
        yield f'    "{command} "*) words="{" ".join(word.name for word in its)}" ;;'
    yield "  esac"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -o default -F _maintenance maintenance"


def _list_choices(words: dict[str, list[Word]]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for command, its in words.items():
        yield from ((command, word.name, word.choices) for word in its if word.choices)


def _render_zsh(words: dict[str, list[Word]]) -> Iterator[str]:
    yield "#compdef maintenance"
    yield "_maintenance() {"
    yield "  local command=${words[(r)" + f"({'|'.join(filter(None, words))})" + "]} before=${words[CURRENT-1]}"
    yield "  local -a found"
    yield '  case "$command $before" in'
    for command, name, choices in _list_choices(words):
        yield f'    "{command} {name}") found=({" ".join(choices)}) ;;'
    for command, its in words.items():
        described = " ".join(f"'{word.name}:{word.help.replace(':', chr(92) + ':')}'" for word in its)
        yield f'    "{command} "*) found=({described}) ;;'
    yield "  esac"
    yield "  _describe maintenance found"
    yield "}"
    yield "compdef _maintenance maintenance"


def _render_fish(words: dict[str, list[Word]]) -> Iterator[str]:
    yield "complete -c maintenance -f"
    for word in words[""]:
        yield f"complete -c maintenance -n __fish_use_subcommand -a {word.name} -d '{word.help}'"
    for command, its in words.items():
        for word in its if command else ():
            yield f"complete -c maintenance -n '__fish_seen_subcommand_from {command}' {_render_fish_word(word)}"


def _render_fish_word(word: Word) -> str:
    if not word.name.startswith("--"):
        return f"-a {word.name}"
    value = f" -xa '{' '.join(word.choices)}'" if word.choices else " -r" if word.takes_value else ""
    return f"-l {word.name[2:]}{value} -d '{word.help}'"


SCRIPTS: Final = {"bash": _render_bash, "zsh": _render_zsh, "fish": _render_fish}
