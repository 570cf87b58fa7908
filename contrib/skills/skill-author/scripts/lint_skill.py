#!/usr/bin/env python3
"""
Check an Agent Skill: the format's rules, what common readers stumble over, and signs of an unfinished text.

    lint_skill.py DIR...              skill directories
    lint_skill.py - < SKILL.md        a text alone; file checks are left out
    lint_skill.py --tar - < dir.tar   a skill directory as a tar stream

Prints ``path:line: LEVEL: message``. ERROR breaks a rule of the format: some reader will refuse the skill.
WARNING is legal and yet goes wrong with some reader or model. HINT is a matter of quality.

Exit codes: 0 no error, 1 at least one error (with --strict: or warning), 2 the input or the call is wrong.

The frontmatter is read by a small reader of its own that knows the forms which every YAML library reads
alike; any other form is reported instead of interpreted.

Source: Agent Skills specification (agentskills.io), "SKILL.md format" and "Optional directories".
"""

import argparse
import io
import os
import re
import signal
import stat
import sys
import tarfile
from dataclasses import dataclass, field

FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
LIMIT_NAME = 64
LIMIT_DESCRIPTION = 1024
LIMIT_COMPATIBILITY = 500
LIMIT_BODY_LINES = 500
# The specification advises 5,000 tokens; about four characters make one.
ADVISED_BODY_CHARS = 20_000
LIMIT_FILE_BYTES = 4 * 1024 * 1024
LIMIT_FILES = 10_000
SKIPPED_DIRS = {".git", "node_modules", "__pycache__", ".venv"}

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
WHEN = re.compile(
    r"\b(when|whenever|before|after|if (the|a|an|you|someone)|use (this|it)? ?(for|to|in)|for (any|all))\b",
    re.I,
)
VAGUE = re.compile(
    r"^(helps? (you )?(with|to)|a (skill|tool) (for|that|to)|this skill|skill (for|to)|useful for)\b", re.I
)
PLACEHOLDER = re.compile(r"\b(TODO|FIXME|TBD|XXX|lorem ipsum)\b|<(your|insert|fill)[^>\n]{0,40}>")
FIRST_PERSON = re.compile(r"\b(I|I'm|I'll|we|our|you can)\b")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])((?:scripts|references|assets)/[\w./+-]*\w)")
ABSOLUTE = re.compile(r"(?<![\w:/])(/home/\w+|/Users/\w+|[A-Z]:\\\\?Users)")
# Words that YAML 1.1 readers turn into a boolean, null, number or date.
NOT_TEXT = re.compile(
    r"(true|false|yes|no|on|off|null|~|[-+]?\d[\d_]*(\.\d*)?(e[-+]?\d+)?|\d{4}-\d\d-\d\d.*|0x[0-9a-f]+)", re.I
)


QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"' + r"|'((?:[^']|'')*)'")


@dataclass(frozen=True)
class Finding:
    line: int
    level: str
    message: str


@dataclass
class File:
    """A file of the skill: its bytes, and whether it may be executed."""

    data: bytes
    is_executable: bool


@dataclass
class Skill:
    """What is to be checked. ``directory`` is "" and ``files`` None where only a text was given."""

    directory: str
    text: bytes
    files: dict[str, File] | None
    findings: list[Finding] = field(default_factory=list)

    def error(self, line: int, message: str) -> None:
        self.findings.append(Finding(line, "ERROR", message))

    def warning(self, line: int, message: str) -> None:
        self.findings.append(Finding(line, "WARNING", message))

    def hint(self, line: int, message: str) -> None:
        self.findings.append(Finding(line, "HINT", message))


class InputError(Exception):
    """The input is no skill at all; the message says why."""


# --- frontmatter --------------------------------------------------------------------------------------


@dataclass
class Value:
    """A field: its text, or its members, and the line where it stands."""

    line: int
    text: str = ""
    is_plain: bool = False
    items: int = 0
    members: dict[str, "Value"] | None = None


def parse_scalar(skill: Skill, line: int, raw: str) -> Value:
    """One value behind a colon, in the forms that all readers understand."""
    if raw.startswith(('"', "'")):
        match = QUOTED.match(raw)
        if match is None:
            skill.error(line, "a quoted text that never ends")
            return Value(line, raw[1:])
        rest = raw[match.end() :].strip()
        if rest and not rest.startswith("#"):
            skill.error(line, f"text after the closing quote: {rest[:30]!r}")
        if match[1] is None:
            return Value(line, match[2].replace("''", "'"))
        return Value(line, re.sub(r"\\(.)", r"\1", match[1]))
    text = re.split(r"\s#", raw, maxsplit=1)[0].rstrip()
    if re.search(r":(\s|$)", text):
        skill.error(line, "a plain value with ': ' in it is not YAML: put it in quotes")
    if text.startswith(("[", "{")):
        skill.warning(line, "flow style ([...] or {...}): strict readers refuse it; write one item a line")
    elif text.startswith(tuple("&*!%@`|>")):
        skill.error(line, f"a plain value cannot begin with {text[0]!r}: put it in quotes")
    return Value(line, text, is_plain=True)


def parse_fields(skill: Skill, lines: list[str], first_line: int) -> dict[str, Value]:
    """Top-level fields of the frontmatter, with one level of members below them."""
    fields: dict[str, Value] = {}
    current: Value | None = None
    last, last_key, last_indent = Value(first_line), "", 0
    index = 0
    while index < len(lines):
        line, number = lines[index], first_line + index
        index += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if "\t" in line[: len(line) - len(line.lstrip())]:
            skill.error(number, "a tab in the indentation: YAML allows spaces only")
            continue
        indent = len(line) - len(line.lstrip(" "))
        match = re.match(r"""("[^"]*"|'[^']*'|[^\s:#][^:]*?)\s*:(?:\s+(.*)|)$""", line.strip())
        if not match:
            if line.lstrip().startswith("- ") and last.members is None:
                if not last.items:
                    skill.warning(number, f"{last_key}: a list, where the format wants one text")
                last.items += 1
                last.text = f"{last.text} {line.strip()[2:]}".strip()
                continue
            if indent > last_indent and last.is_plain and last.members is None:
                # A plain value may go on, indented further, on the next line.
                last.text = f"{last.text} {line.strip()}".strip()
                continue
            skill.error(number, f"not a 'key: value' line: {line.strip()[:40]!r}")
            continue
        key, raw = match[1].strip("\"'"), (match[2] or "").strip()
        if indent and current is None:
            skill.error(number, "the first field is indented")
            continue
        if re.fullmatch(r"[|>][+-]?\d?", raw):
            block, start = [], index
            while index < len(lines) and (
                not lines[index].strip() or len(lines[index]) - len(lines[index].lstrip()) > indent
            ):
                block.append(lines[index].strip())
                index += 1
            value = Value(number, ("\n" if raw[0] == "|" else " ").join(block).strip())
            if start == index:
                skill.error(number, f"{key}: nothing in the block below")
            skill.warning(
                number,
                f"{key}: a block ({raw[0]}) is read as {raw[0]!r} by some readers; one quoted line is safe",
            )
        else:
            if raw.startswith(('"', "'")) and not QUOTED.match(raw):
                skill.warning(number, f"{key}: a quoted text over several lines: simple readers cut it")
                while index < len(lines) and not QUOTED.match(raw):
                    raw += " " + lines[index].strip()
                    index += 1
            value = parse_scalar(skill, number, raw)
        last, last_key, last_indent = value, key, indent
        if indent:
            if current.text:
                skill.error(number, "an indented key below a field that already has a value")
                continue
            current.members = current.members or {}
            if key in current.members:
                skill.error(number, f"{key} twice")
            current.members[key] = value
        else:
            if key in fields:
                skill.error(number, f"the field {key} twice: readers disagree which one counts")
            fields[key] = current = value
    return fields


def split(skill: Skill) -> tuple[dict[str, Value], list[str], int]:
    """Fields, lines of the body, and the number of the body's first line."""
    data = skill.text
    if data.startswith(b"\xef\xbb\xbf"):
        skill.error(1, "a byte-order mark before ---: most readers then see no frontmatter")
        data = data[3:]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        skill.error(data.count(b"\n", 0, exc.start) + 1, "not UTF-8")
        text = data.decode("utf-8", "replace")
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        skill.error(1, "the first line must be ---")
        return {}, lines, 1
    end = next((index for index in range(1, len(lines)) if lines[index].rstrip() == "---"), None)
    if end is None:
        skill.error(1, "the frontmatter is never closed by ---")
        return {}, [], 1
    fields = parse_fields(skill, lines[1:end], 2)
    for index in range(1, end):
        if "---" in lines[index]:
            skill.warning(index + 1, "'---' inside the frontmatter: some readers cut there")
    return fields, lines[end + 1 :], end + 2


# --- the rules ----------------------------------------------------------------------------------------


def check_fields(skill: Skill, fields: dict[str, Value]) -> None:
    for name, value in fields.items():
        if name not in FIELDS:
            skill.error(value.line, f"unknown field {name}: move it below metadata")
        if name != "metadata" and value.members is not None:
            skill.error(value.line, f"{name} must be a text, not a mapping")
        if name != "metadata" and value.is_plain and NOT_TEXT.fullmatch(value.text):
            skill.warning(value.line, f"{name}: {value.text} is not a text for YAML: put it in quotes")
    check_name(skill, fields.get("name"))
    check_description(skill, fields.get("description"))
    if "compatibility" in fields and not 1 <= len(fields["compatibility"].text) <= LIMIT_COMPATIBILITY:
        length = len(fields["compatibility"].text)
        skill.error(
            fields["compatibility"].line,
            f"compatibility: {length} characters, allowed are 1 to {LIMIT_COMPATIBILITY}",
        )
    if "allowed-tools" in fields:
        tools = fields["allowed-tools"]
        if not tools.items and "," in re.sub(r"\([^)]*\)", "", tools.text):
            skill.warning(tools.line, "allowed-tools: tools are separated by spaces, in one text")
    if "metadata" in fields:
        metadata = fields["metadata"]
        if metadata.members is None:
            skill.error(metadata.line, "metadata must be a mapping")
        for key, value in (metadata.members or {}).items():
            if value.is_plain and (NOT_TEXT.fullmatch(value.text) or not value.text):
                skill.warning(
                    value.line, f"metadata.{key}: must be a text: put {value.text or 'the value'} in quotes"
                )


def check_name(skill: Skill, name: Value | None) -> None:
    if name is None or not name.text:
        skill.error(name.line if name else 1, "name is missing")
        return
    if len(name.text) > LIMIT_NAME:
        skill.error(name.line, f"name: {len(name.text)} characters, at most {LIMIT_NAME} are allowed")
    if not NAME.fullmatch(name.text):
        skill.error(name.line, f"name: {name.text!r} is not made of a-z, 0-9 and single hyphens between them")
    if skill.directory and name.text != skill.directory:
        skill.error(name.line, f"name: {name.text!r} is not the directory's name {skill.directory!r}")
    for word in ("claude", "anthropic"):
        if word in name.text:
            skill.warning(name.line, f"name: some readers reserve the word {word!r}")


def check_description(skill: Skill, description: Value | None) -> None:
    if description is None or not description.text.strip():
        skill.error(description.line if description else 1, "description is missing")
        return
    line, text = description.line, description.text
    if len(text) > LIMIT_DESCRIPTION:
        skill.error(
            line,
            f"description: {len(text)} characters, at most {LIMIT_DESCRIPTION} are allowed",
        )
    if re.search(r"<[a-zA-Z/][^>]*>", text):
        skill.warning(
            line, "description: something like a <tag>; some readers refuse it, since it goes into a prompt"
        )
    if len(text) < 60:
        skill.hint(line, f"description: {len(text)} characters are too few to be found by")
    if not WHEN.search(text):
        skill.hint(
            line, "description: says what, not when; add 'Use when ...' with the words a user would say"
        )
    if VAGUE.match(text):
        skill.hint(
            line, "description: begin with the verb of what it does, not with 'helps with' or 'this skill'"
        )
    if match := FIRST_PERSON.search(text):
        skill.hint(
            line, f"description: {match[0]!r}: it is read by a model about a skill; write in the third person"
        )


def check_body(skill: Skill, body: list[str], first_line: int) -> None:
    while body and not body[-1].strip():
        body = body[:-1]
    if not any(line.strip() for line in body):
        skill.warning(first_line, "no instructions below the frontmatter")
        return
    if len(body) > LIMIT_BODY_LINES:
        skill.warning(
            first_line,
            f"{len(body)} lines of body, {LIMIT_BODY_LINES} are advised: move parts to references/",
        )
    size = sum(len(line) + 1 for line in body)
    if size > ADVISED_BODY_CHARS:
        skill.hint(
            first_line, f"{size} characters of body, about {size // 4} tokens; 5,000 tokens are advised"
        )
    text = "\n".join(body)
    if not re.search(r"^#{1,3} .*\b(example|usage|sample)", text, re.I | re.M) and "```" not in text:
        skill.hint(first_line, "no example: one input with its true output teaches more than a page of rules")
    mentioned: set[str] = set()
    in_code = False
    for number, line in enumerate(body, first_line):
        in_code ^= line.lstrip().startswith("```")
        # In code the word may be an example of what to look for.
        if not in_code and (match := PLACEHOLDER.search(re.sub(r"`[^`]*`", "", line))):
            skill.warning(number, f"unfinished: {match[0]}")
        if match := ABSOLUTE.search(line):
            skill.warning(number, f"a path of one machine: {match[0]}")
        for target in LINK.findall(line):
            if not re.match(r"[a-z][a-z0-9+.-]*:|#", target):
                mentioned.add(target.split("#")[0])
                check_path(skill, number, target.split("#")[0])
        for target in PATH.findall(line):
            mentioned.add(target)
            check_path(skill, number, target)
    for path in sorted(skill.files or {}):
        folder = path.split("/")[0]
        if folder in ("scripts", "references") and path not in mentioned and "/" in path:
            stem = path.rsplit("/", 1)[1]
            if stem not in text:
                skill.hint(first_line, f"{path} is never mentioned: no reader will open it")


def check_path(skill: Skill, line: int, target: str) -> None:
    if skill.files is None or not target:
        return
    path = target.removeprefix("./").rstrip("/")
    if path.startswith("../") or path.startswith("/"):
        skill.warning(line, f"{target} leads out of the skill")
    elif path not in skill.files and not any(name.startswith(f"{path}/") for name in skill.files):
        skill.warning(line, f"{target} does not exist")


def check_files(skill: Skill) -> None:
    if skill.files is None:
        return
    for path, file in sorted(skill.files.items()):
        if "\n" in path or any(not char.isprintable() for char in path):
            skill.warning(0, f"{path!r}: a control character in a file name")
        if path.startswith("scripts/") and re.search(r"\.(py|sh|bash|js|mjs|rb|pl)$", path):
            first = file.data.split(b"\n", 1)[0]
            if not first.startswith(b"#!"):
                skill.hint(0, f"{path}: no #! line, so that it only runs through an interpreter")
            elif first.endswith(b"\r"):
                skill.error(0, f"{path}: the #! line ends in CR LF: the kernel will not find the interpreter")
            elif not file.is_executable:
                skill.hint(0, f"{path}: has a #! line but no execute bit")
            if path.endswith(".py"):
                try:
                    compile(file.data, path, "exec", dont_inherit=True)
                except (SyntaxError, ValueError) as exc:
                    skill.error(0, f"{path}: {exc}")
        if path.rsplit("/", 1)[-1].lower() == "skill.md" and "/" in path:
            skill.warning(0, f"{path}: a skill inside a skill; some readers find both, some one")


def check(skill: Skill) -> list[Finding]:
    fields, body, first_line = split(skill)
    if fields:
        check_fields(skill, fields)
    check_body(skill, body, first_line)
    check_files(skill)
    return sorted(dict.fromkeys(skill.findings), key=lambda finding: finding.line)


# --- reading ------------------------------------------------------------------------------------------


def read_directory(path: str) -> Skill:
    """The skill in a directory. Raises InputError, OSError."""
    files: dict[str, File] = {}
    if not os.path.isdir(path):
        raise InputError(f"{path}: not a directory")
    for directory, names, file_names in os.walk(path):
        names[:] = sorted(name for name in names if name not in SKIPPED_DIRS)
        for name in file_names:
            full = os.path.join(directory, name)
            info = os.stat(full) if os.path.exists(full) else os.lstat(full)
            data = b""
            if stat.S_ISREG(info.st_mode) and info.st_size <= LIMIT_FILE_BYTES:
                with open(full, "rb") as file:
                    data = file.read()
            files[os.path.relpath(full, path)] = File(data, bool(info.st_mode & 0o111))
            if len(files) > LIMIT_FILES:
                raise InputError(f"{path}: more than {LIMIT_FILES} files")
    return make_skill(os.path.basename(os.path.abspath(path)), files, path)


def read_tar(stream: io.BufferedIOBase) -> Skill:
    """The skill in a tar stream, with or without a directory above it. Raises InputError."""
    files: dict[str, File] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                if member.isfile() and member.size <= LIMIT_FILE_BYTES and len(files) < LIMIT_FILES:
                    content = archive.extractfile(member)
                    files[member.name.removeprefix("./")] = File(
                        content.read() if content else b"", bool(member.mode & 0o111)
                    )
    except (tarfile.TarError, EOFError) as exc:
        raise InputError(f"not a readable tar archive: {exc}") from None
    tops = {path.split("/")[0] for path in files if "/" in path}
    directory = ""
    if len(tops) == 1 and "SKILL.md" not in files:
        directory = tops.pop()
        files = {path.removeprefix(f"{directory}/"): file for path, file in files.items()}
    return make_skill(directory, files, "<tar>")


def read_skill(path: str, is_tar: bool) -> Skill:
    """What an argument names. Raises InputError, OSError."""
    if path != "-":
        skill = read_directory(path)
    elif is_tar:
        skill = read_tar(sys.stdin.buffer)
    else:
        skill = Skill("", sys.stdin.buffer.read(), None)
    if not skill.text.strip():
        raise InputError(f"{path}: SKILL.md is empty")
    return skill


def make_skill(directory: str, files: dict[str, File], where: str) -> Skill:
    name = next((name for name in ("SKILL.md", "skill.md") if name in files), None)
    if name is None:
        raise InputError(f"{where}: no SKILL.md in it")
    skill = Skill(directory, files[name].data, {path: file for path, file in files.items() if path != name})
    if name == "skill.md":
        skill.warning(1, "skill.md: many readers look for SKILL.md only")
    return skill


def printable(text: str) -> str:
    """The skill is untrusted: nothing in it may start a line or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Check an Agent Skill.")
    parser.add_argument(
        "paths", nargs="*", default=["-"], help="skill directories; - reads SKILL.md from standard input"
    )
    parser.add_argument("--tar", action="store_true", help="- is a tar stream of the skill directory")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors in the exit code")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    is_bad = False
    for path in args.paths:
        try:
            skill = read_skill(path, args.tar)
        except InputError as exc:
            print(f"lint_skill.py: {exc}", file=sys.stderr)
            return 2
        except OSError as exc:
            print(f"lint_skill.py: {exc.filename or path}: {exc.strerror}", file=sys.stderr)
            return 2
        where = "SKILL.md" if path == "-" else os.path.join(path, "SKILL.md")
        findings = check(skill)
        for finding in findings:
            place = f"{where}:{finding.line}" if finding.line else where
            print(f"{place}: {finding.level}: {printable(finding.message)}")
        if not findings:
            print(f"{where}: nothing to say")
        levels = {finding.level for finding in findings}
        is_bad = is_bad or "ERROR" in levels or (args.strict and "WARNING" in levels)
    return 1 if is_bad else 0


if __name__ == "__main__":
    sys.exit(main())
