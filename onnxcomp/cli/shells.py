"""What bash, zsh and fish are asked and told, so that `--mode=we` and `images:fol` are completed as `we` and `fol` are.

The script of a shell sends the line up to the cursor. Each line of the answer is `kind,text`, and for fish and zsh a
tab and a description: `plain` is the whole word that may stand there; `file` says that files may, after `text` (empty
where they are the whole word). bash and fish take a word with `:` or `=` for several or for one: their scripts know.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

_BASH = r"""
%(complete_func)s() {
    local kind text typed word="${COMP_WORDS[COMP_CWORD]}"
    [[ $word == [:=] ]] && word=""
    COMPREPLY=()
    while IFS=',' read -r kind text; do
        case $kind in
            word) typed="${text%%"$word"}" ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${text#"$typed"}") ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *: ]] && compopt -o nospace
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local -a words_alone words_told open_words
    local kind text told line
    (( ! $+commands[%(prog_name)s] )) && return 1

    line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    for line in "${(@f)$(env COMP_LINE="$line" %(complete_var)s=zsh_complete %(prog_name)s)}"; do
        kind="${line%%%%,*}" text="${line#*,}"
        told="${text#*$'\t'}" text="${text%%%%$'\t'*}"
        case $kind in
            plain)
                if [[ $text == *: ]]; then open_words+=("$text")
                elif [[ $told == $text ]]; then words_alone+=("$text")
                else words_told+=("${text//:/\\:}:$told")
                fi ;;
            file) local lead=$text files=1 ;;
        esac
    done

    (( $#words_told )) && _describe -V unsorted words_told -U
    (( $#words_alone )) && compadd -U -V unsorted -a words_alone
    (( $#open_words )) && compadd -U -V unsorted -S '' -a open_words
    if (( files )); then
        compset -P "${(b)lead}"
        _path_files -f
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = r"""
function %(complete_func)s
    for line in (env %(complete_var)s=fish_complete COMP_LINE=(commandline -cp) %(prog_name)s)
        set -l parts (string split -m 1 "," -- $line)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                # As for a command that is unknown: files. The word keeps its quotes and its ~.
                set -l word (string replace -- "$parts[2]" "" (commandline -ct))
                for file in (complete -C "__fish_command_without_completions $word")
                    echo $parts[2]$file
                end
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Asked(ShellComplete):
    """What the shells have in common: the line that they send, and whole words in the answer."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        # One more letter makes one more word where the last one is closed.
        closed = len(split_arg_string(f"{line}x")) > len(words)
        return (words[1:], "") if closed else (words[1:-1], words[-1])

    def complete(self) -> str:
        args, word = self.get_completion_args()
        lead = word[: word.index("=") + 1] if word.startswith("--") and "=" in word else ""
        lines = self.opening(word)
        for item in self.get_completions(args, word):
            if item.type == "plain":
                lines.append(self.format_completion(CompletionItem(lead + item.value, help=item.help)))
            else:
                lines.append(f"file,{word.removesuffix(item.value)}")
        return "\n".join(lines)

    def opening(self, word: str) -> list[str]:
        """Lines before the answers."""
        return []

    def format_completion(self, item: CompletionItem[Any]) -> str:
        told = " ".join(item.help.split()) if item.help else ""
        return f"plain,{item.value}\t{told}" if told else f"plain,{item.value}"


class Bash(_Asked, BashComplete):
    source_template = _BASH

    def opening(self, word: str) -> list[str]:
        return [f"word,{word}"]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"plain,{item.value}"


class Zsh(_Asked, ZshComplete):
    source_template = _ZSH


class Fish(_Asked, FishComplete):
    source_template = _FISH


def register() -> None:
    """Makes them the ones that click's own dispatch finds."""
    for kind in (Bash, Zsh, Fish):
        add_completion_class(kind)
