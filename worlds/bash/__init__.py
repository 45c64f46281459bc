"""A small bash in process: twenty commands over a file tree in memory, with bash's own words for every error.

A sandboxed command costs milliseconds and one in here some tens of microseconds, so agents train here and are judged in either. The two
agree because tests/test_bash.py says so: over more than 500 random command lines, real bash in the sandbox and this file must print the same text,
give the same exit status and leave the same tree.

    shell = Bash({"docs/a.txt": File(b"hello")})
    shell.run("cp docs/a.txt b.txt && wc -c *.txt")     Result(output="5 b.txt\n", status=0)

What it knows: words with quotes, backslashes and globs; | && || ; and newlines; < > >> 2> 2>> &> 2>&1; and the commands in COMMANDS.
What it does not know (variables, $(...), loops, `ls -l`, what lies outside the home folder) it refuses by name with status 2; it never guesses.
Where real bash leaves the order to the file system (find, grep -r, tar of a folder), this one sorts.
It has no clock: what is written now gets the time NOW, later than every tree's own dates, as in real life.
"""

import re
from dataclasses import dataclass

from worlds.bash.arguments import Streams, glob
from worlds.bash.commands import COMMANDS
from worlds.bash.files import NOW, Failure, Files, Unknown
from worlds.sandbox import File, Result, Tree

ELSEWHERE = frozenset(  # what real bash would find: not "command not found" here, but refused as unknown
    "alias awk basename bash base64 bc bzip2 break builtin case chmod chown cmp comm command continue cut date dd declare df diff dirname do done du "
    "elif else env esac eval exec exit export expr file fi for function gawk git gunzip gzip hash hostname id if install in kill let link ln local "
    "locale make md5sum mktemp more nl nproc od paste perl printf ps python python3 read readlink realpath rename return rmdir sed select seq set sh "
    "sha256sum shift shopt sleep source split stat strings tac tee test then time timeout tr trap truncate type ulimit umask uname unlink unset until "
    "unzip wait watch which while whoami xargs xz yes zip [ [[ . :".split())


# ---------------------------------------------------------------------------------------- words and operators

PIECE = re.compile(r"""
    (?P<space>    [ \t]+ )
  | (?P<operator> && | \|\| | (?<![^\s|;&<>]) 2 (?: >> | >&1 | > ) | &> | >> | [|;<>\n] )
  | (?P<plain>    [^\s'"\\|&;<>\#$`(){}~*?\[2]+ | 2 | (?<=[^\s|;&<>]) [\#~] | \{\} )  # they mean nothing but themselves
  | (?P<magic>    [*?\[] )
  | ' (?P<single> [^']* ) '
  | " (?P<double> [^"$`\\]* ) "
  | \\(?P<escaped>[^\n] )
  | (?P<comment>  \# [^\n]* )
  | (?P<unknown>  . )
""", re.VERBOSE | re.DOTALL)
QUOTED = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})  # as a glob pattern that matches the character itself
JOINERS = frozenset({"&&", "||", ";", "\n", "end"})


@dataclass(slots=True, eq=False)
class Word:
    """One word: what it says, the same as a glob pattern in which quoted characters stand for themselves, and whether it is a glob at all."""
    text: str
    pattern: str
    glob: bool


def split(line: str) -> list[Word | str]:
    """A command line as words and operators (plain strings). Raises Unknown for what this shell cannot read."""
    tokens: list[Word | str] = []
    word: Word | None = None                     # the one that is being read
    for piece in PIECE.finditer(line):
        kind, text = piece.lastgroup, piece[piece.lastgroup]
        if kind in ("plain", "magic", "single", "double", "escaped"):
            if word is None:
                word = Word("", "", False)
                tokens.append(word)
            word.text += text
            word.pattern += text if kind in ("plain", "magic") else text.translate(QUOTED)
            word.glob = word.glob or kind == "magic"
        elif kind == "unknown":
            raise Unknown({"'": "a quote without its end", '"': "this use of double quotes"}.get(text, text))
        else:
            word = None
            if kind == "operator":
                tokens.append(text)
    return tokens


# ------------------------------------------------------------------------------------------------- the shell

class Bash:
    """A file tree and a shell on it, with the methods of worlds.sandbox.Sandbox."""

    def __init__(self, tree: Tree | None = None):
        self.files = Files(tree or {})

    def __enter__(self) -> "Bash":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    def tree(self) -> dict[str, File]:
        """What the home folder holds."""
        return self.files.tree()

    def run(self, command: str) -> Result:
        """Run one command line from the home folder. Never raises."""
        self.files.here = []
        output = bytearray()
        try:
            tokens = split(command)
            status = self.run_list(tokens, output)
        except Unknown as unknown:
            return Result(output.decode(errors="replace") + f"bash: this small shell does not know {unknown}\n", 2)
        return Result(output.decode(errors="replace"), status)

    def run_list(self, tokens: list[Word | str], output: bytearray) -> int:
        """Pipelines joined by && || ; and newlines, from left to right."""
        status, pipeline, joiner = 0, [], ";"
        for token in [*tokens, "end"]:
            if isinstance(token, Word) or token not in JOINERS:
                pipeline.append(token)
                continue
            if not pipeline and token in ("&&", "||", ";"):
                raise Unknown(f"a {token} with nothing before it")
            if not pipeline and token == "end" and joiner in ("&&", "||"):
                raise Unknown(f"a {joiner} with nothing behind it")
            if pipeline and (joiner in (";", "\n") or (joiner == "&&") == (status == 0)):
                status = self.run_pipeline(pipeline, output)
            if pipeline or token != "\n":
                joiner = token
            pipeline = []
        return status

    def run_pipeline(self, tokens: list[Word | str], output: bytearray) -> int:
        """Commands joined by |, each in a shell of its own where there are several."""
        negate = isinstance(tokens[0], Word) and tokens[0].pattern == "!"
        stages: list[list[Word | str]] = [[]]
        for token in tokens[negate:]:
            if token == "|":
                stages.append([])
            else:
                stages[-1].append(token)
        if not all(stages):
            raise Unknown("a | with nothing beside it")
        before, piped, status = self.files.here, b"", 0
        for number, stage in enumerate(stages):
            out = output if number == len(stages) - 1 else bytearray()
            status = self.run_command(stage, Streams(piped, out, output, piped=number > 0))
            if len(stages) > 1:
                self.files.here = before
            piped = bytes(out)
        return int(not status) if negate else status

    def run_command(self, tokens: list[Word | str], streams: Streams) -> int:
        """One command with its redirections."""
        words: list[str] = []
        targets: list[tuple[str, bytearray, str]] = []
        terminal = streams.err
        tokens = iter(tokens)
        for token in tokens:
            if isinstance(token, Word):
                words += self.expand(token)
            elif token == "2>&1":
                streams.err = streams.out
            else:
                file = next(tokens, None)
                if not isinstance(file, Word):
                    raise Unknown(f"a {token} without its file")
                names = self.expand(file)
                if len(names) > 1:
                    terminal += f"bash: line 1: {file.text}: ambiguous redirect\n".encode()
                    return 1
                try:
                    if token == "<":
                        streams.stdin, streams.piped = self.files.read(names[0]), False
                    else:
                        written = self.open_for_writing(names[0], token, targets)
                        if token in ("2>", "2>>", "&>"):
                            streams.err = written
                        if token in (">", ">>", "&>"):
                            streams.out = written
                except Failure as failure:
                    terminal += f"bash: line 1: {names[0]}: {failure}\n".encode()
                    self.save(targets)
                    return 1
        if not words:
            self.save(targets)
            return 0
        if words[0] not in COMMANDS:
            if words[0] in ELSEWHERE or "/" in words[0] or "=" in words[0]:
                raise Unknown(words[0])
            streams.err += f"bash: line 1: {words[0]}: command not found\n".encode()
            status = 127
        else:
            status = COMMANDS[words[0]](self.files, words[1:], streams)
        self.save(targets)
        return status

    def open_for_writing(self, path: str, operator: str, targets: list[tuple[str, bytearray, str]]) -> bytearray:
        """The buffer behind > and >>; the file exists from now on, empty or as it was."""
        written = bytearray()
        if path != "/dev/null":
            node = self.files.create(path)
            if operator in (">", "2>", "&>"):
                node.data, node.modified = b"", NOW
            targets.append((path, written, operator))
        return written

    def save(self, targets: list[tuple[str, bytearray, str]]) -> None:
        for path, written, _ in targets:
            if written:
                try:
                    node = self.files.find(path)
                except Failure:              # the command has moved it away or removed it
                    continue
                node.data, node.modified = (node.data or b"") + bytes(written), NOW

    def expand(self, word: Word) -> list[str]:
        """A word's paths if it is a glob that matches any, else the word itself."""
        if not word.glob:
            return [word.text]
        parts = word.pattern.split("/")
        found = [""]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            matched: list[str] = []
            for prefix in found:
                if not any(magic in part for magic in "*?["):
                    path = prefix + part
                    there = not path or (self.files.exists(path) if last and part else last or self.files.is_folder(path))
                    candidates = [part] if there else []
                else:
                    folder = self.files.find(prefix or ".") if self.files.is_folder(prefix or ".") else None
                    names = sorted(folder.children) if folder else []
                    candidates = [name for name in names if glob(part)(name) and (not name.startswith(".") or part.startswith("."))
                                  and (last or folder.children[name].is_folder)]
                matched += [prefix + name + ("" if last else "/") for name in candidates]
            found = matched
        return found or [word.text]
