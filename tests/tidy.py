#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tidy.py -- STYLE.md as a test: sizes, heads, include arrows, purity, contracts, tests, format.

usage: tidy.py [--root DIR] [--no-format] [PATH...]   with PATHs, only findings in them are told
       tidy.py --self-test                            plants every kind of violation (tidy_test.py)

Prints one line per finding, `path:line: rule: what, and the limit`, and exits 1 if there is any.
Reads text only; needs no compiler. Standard library only.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

from tidy_rules import (ARROWS, CONTRACT_GROUP_MAX, COVERED_BY, C_KINDS, DATA_FOLDERS, EXCEPTIONS,
                        FILE_LINES_MAX, FUNCTION_LINES_MAX, IMPURE_CALLS, IMPURE_OURS,
                        IMPURE_SYSTEM, KERNEL_LINES_MAX, LAUNCHER_PARAMETERS_MAX,
                        LINE_COLUMNS_MAX, OUTSIDE, PARAMETERS_MAX, PURE, ZONES)

OP_FIELDS = ("shape", "needs", "moves", "error", "source")
KERNEL_FIELDS = ("launch", "limit")
BANNED_WORDS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"))
                          + r")\b|(?i:not[ -]implement" + r"ed|place" + r"holder)")
BANNED_PLACES = re.compile(r"\.\./sha" + r"red\b|(?<![\w.$}])/wo" + r"rk\b(?!\w)|\bDESI" + r"GN\b")
ASSERTION = re.compile(r"\b(assert_\w+|CHECK\w*|REQUIRE\w*|ASSERT|fail|fail_msg)\s*\(")
EMPTY_ASSERTION = re.compile(
    r"\bassert_(?:true|non_null)\s*\(\s*(?:true|1)\s*\)|\bassert_false\s*\(\s*(?:false|0)\s*\)"
    r"|\bassert_\w+equal\s*\(\s*([\w.>\[\]-]+)\s*,\s*\1\s*\)")
TYPEDEF_ALLOWED = re.compile(
    r"typedef\s+(struct\s*\{\s*u?int\d+_t\s+\w+;\s*\}|u?int\d+_t)\s+\w+(\s*\[\w+\])?\s*;$")


class Source:
    """One file: its text, its lines, and for C also the code with comments and strings blanked."""

    def __init__(self, root, path):
        self.path = path
        self.kind = os.path.splitext(path)[1]
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            self.text = file.read()
        self.lines = self.text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()
        self.is_c = self.kind in C_KINDS
        self.code = blank_comments(self.text) if self.is_c else ""
        self.includes = find_includes(self.text, self.code) if self.is_c else []
        self.functions, self.declarations, self.others = (
            parse_c(self.code) if self.is_c else ([], [], []))


class Function:
    """A C function, defined or declared: name, first and last line (1-based), parameters."""

    def __init__(self, head, first, last):
        self.name, self.parameters = name_and_parameters(head)
        self.head, self.first, self.last = head, first, last


def blank_comments(text):
    """The same text with comments, string and character literals replaced by spaces."""
    pattern = re.compile(
        r"//(?:\\\n|[^\n])*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|(?<![\w])'(?:\\.|[^'\\\n])*'", re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def find_includes(text, code):
    """(line, quoted?, name) of every #include that is not inside a comment."""
    found = []
    code_lines = code.split("\n")
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", line)
        if match and "include" in code_lines[number - 1]:
            found.append((number, match.group(1) == '"', match.group(2)))
    return found


def name_and_parameters(head):
    """The declared function's name and its parameter texts; name None when there is none."""
    for match in re.finditer(r"\b([A-Za-z_]\w*)\s*\(", head):
        name = match.group(1)
        if head[:match.start()].count("(") != head[:match.start()].count(")"):
            continue
        if name.isupper() or name.startswith("__") or name in ("sizeof", "typeof", "alignas"):
            continue
        depth, parts, part = 1, [], ""
        for char in head[match.end():]:
            depth += (char in "([{") - (char in ")]}")
            if depth == 0:
                break
            if char == "," and depth == 1:
                parts.append(part)
                part = ""
            else:
                part += char
        parts.append(part)
        parts = [p.strip() for p in parts if p.strip()]
        return name, [] if parts == ["void"] else parts
    return None, []


def parse_c(code):
    """Splits C at file level: functions defined, functions declared, other (line, text) items."""
    code = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code,
                  flags=re.M)
    functions, declarations, others = [], [], []
    depth, chunk, start, line, body_of = 0, "", None, 1, None
    for char in code:
        if char == "\n":
            line += 1
        if depth == 0 and start is None and not char.isspace():
            start = line
        if char == "{":
            if depth == 0 and re.fullmatch(r"\s*extern\s*", chunk):
                chunk, start = "", None
                continue
            if depth == 0 and is_function_head(chunk):
                body_of = (chunk, start)
            depth += 1
        if char == "}" and depth == 0:
            start = None  # the end of extern "C"
            continue
        if depth == 0 or body_of is None:
            chunk += char
        if char == "}":
            depth -= 1
            if depth == 0 and body_of:
                functions.append(Function(body_of[0], body_of[1], line))
                chunk, start, body_of = "", None, None
        if char == ";" and depth == 0:
            if is_function_head(chunk) and "{" not in chunk and "typedef" not in chunk:
                declarations.append(Function(chunk, start, line))
            else:
                others.append((start, " ".join(chunk.split())))
            chunk, start = "", None
    return functions, declarations, others


def is_function_head(chunk):
    before = chunk.split("(")[0]
    return "(" in chunk and "=" not in before and name_and_parameters(chunk)[0] is not None \
        and not re.search(r"_Static_assert|static_assert", chunk)


def zone_of(path):
    for zone, pattern in ZONES:
        if re.match(pattern, path):
            return zone
    return None


# ---------------------------------------------------------------- rules: each yields (line, text)
def rule_text(source, _):
    if source.path.endswith("STYLE.md"):
        return
    for number, line in enumerate(source.lines, 1):
        if "\t" in line:
            yield number, "a tab; indentation is spaces"
        if line != line.rstrip():
            yield number, "spaces at the end of the line"
        if match := BANNED_WORDS.search(line):
            yield number, f"'{match.group(0)}': finish it or write an issue"
        if match := BANNED_PLACES.search(line):
            yield number, f"'{match.group(0)}' is outside the repository"
    if source.text and not source.text.endswith("\n"):
        yield len(source.lines), "no newline at the end of the file"


def rule_columns(source, _):
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_COLUMNS_MAX and source.kind != ".md":
            yield number, f"{len(line)} columns, the limit is {LINE_COLUMNS_MAX}"


def rule_head(source, _):
    if source.kind == ".md" or not source.lines:
        return
    top = source.lines[1:] if source.lines[0].startswith("#!") else source.lines
    mark = "//" if source.is_c else "#"
    if not top or top[0] != f"{mark} SPDX-License-Identifier: Apache-2.0":
        yield 1, f"the first line is not '{mark} SPDX-License-Identifier: Apache-2.0'"
        return
    second = top[1] if len(top) > 1 else ""
    says = re.match(r'(//|#|""")\s*\S+(\s+\S+){2}', second)
    if not says and not os.path.basename(source.path) == "__init__.py":
        yield 2, "no head comment: one to six lines on what the file owns and what it does not"


def rule_size(source, _):
    limit = FILE_LINES_MAX.get(source.kind)
    if limit and len(source.lines) > limit:
        yield 1, f"{len(source.lines)} lines, the limit for {source.kind} is {limit}"
    for function in source.functions:
        kernel = "__global__" in function.head
        limit = KERNEL_LINES_MAX if kernel else FUNCTION_LINES_MAX
        length = function.last - function.first + 1
        if length > limit:
            yield function.first, f"{function.name} has {length} lines, the limit is {limit}"
    for function in source.functions + source.declarations:
        launcher = source.path.startswith("kernels/") and (
            "__global__" in function.head or function.name.endswith("_twin")
            or any("stream" in p for p in function.parameters))
        limit = LAUNCHER_PARAMETERS_MAX if launcher else PARAMETERS_MAX
        if len(function.parameters) > limit:
            yield function.first, (f"{function.name} takes {len(function.parameters)} parameters,"
                                   f" the limit is {limit}; then a struct")
    if source.kind == ".py":
        yield from python_sizes(source)


def python_sizes(source):
    import ast
    try:
        tree = ast.parse(source.text)
    except SyntaxError as problem:
        yield problem.lineno or 1, f"does not parse: {problem.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield node.lineno, (f"{node.name} has {length} lines,"
                                    f" the limit is {FUNCTION_LINES_MAX}")


def rule_include(source, tree):
    if not source.is_c:
        return
    zone = zone_of(source.path)
    if zone is None:
        yield 1, "the file is in no line of the arrow table (ZONES in tests/tidy_rules.py)"
        return
    own = os.path.splitext(source.path)[0] + ".h"
    if source.kind == ".c" and own in tree and \
            (not source.includes or source.includes[0][2] != own):
        yield 1, f"the first include is not the file's own header, {own}"
    for line, quoted, name in source.includes:
        if quoted:
            yield from check_arrow(source, tree, zone, line, name)
            continue
        for header, allowed in OUTSIDE:
            if re.match(header, name) and not re.match(allowed, source.path):
                yield line, f"<{name}> may not be seen here (OUTSIDE in tests/tidy_rules.py)"


def check_arrow(source, tree, zone, line, name):
    target = zone_of(name)
    if name not in tree:
        yield line, f'"{name}" is not a path from the root'
    elif name.endswith((".c", ".cu")):
        yield line, f'"{name}" is a source file; include its header'
    elif target != zone and target not in ARROWS[zone]:
        yield line, f"{zone} may not include {target} ({name})"


def rule_pure(source, tree):
    if not PURE.match(source.path):
        return
    for line, name in impure_includes(source, tree):
        yield line, f"pure, but includes {name}: no clock, socket, thread, allocation or output"
    for number, line in enumerate(source.code.split("\n"), 1):
        if match := IMPURE_CALLS.search(line):
            yield number, f"pure, but calls {match.group(1)}"
        if re.search(r"\berrno\b", line):
            yield number, "pure, but uses errno"
    for line, text in source.others:
        if text.startswith("static") and not re.search(r"\bconst\b", text) and "(" not in text:
            yield line, "pure, but has a variable of its own"


def impure_includes(source, tree):
    """Impure headers that a pure file sees, also through our own headers; line of the way in."""
    for line, quoted, name in source.includes:
        todo, seen = [(name, quoted)], set()
        while todo:
            header, ours = todo.pop()
            if header in seen:
                continue
            seen.add(header)
            if (IMPURE_OURS.search(header) if ours else IMPURE_SYSTEM.match(header)):
                yield line, header if header == name else f"{header} (by way of {name})"
            elif ours and header in tree:
                todo += [(n, q) for _, q, n in tree[header].includes]


def rule_contract(source, _):
    if source.kind not in (".h", ".cuh"):
        return
    if "#pragma once" not in source.lines:
        yield 1, "no #pragma once"
    items = sorted(source.functions + source.declarations, key=lambda f: f.first)
    last, group, documented = None, 0, False
    is_op = source.path.startswith("kernels/") and " -- op: " in source.lines[1]
    for function in items:
        above = source.lines[function.first - 2].strip() if function.first > 1 else ""
        beside = re.search(r"; // \S", source.lines[function.last - 1])
        head = is_op and function is items[0]  # the op itself: its contract is the head comment
        if head or beside or above.startswith("//") or above.endswith("*/"):
            group, documented = 1, True
        elif last == function.first - 1:
            group += 1
        else:
            group, documented = 1, False
        if not documented:
            yield function.first, f"{function.name} has no contract comment right above or beside"
        elif group > CONTRACT_GROUP_MAX:
            yield function.first, (f"{function.name}: more than {CONTRACT_GROUP_MAX} functions"
                                   " share one contract")
        last = function.last


def rule_typedef(source, _):
    for line, text in source.others:
        if text.startswith("typedef") and not TYPEDEF_ALLOWED.match(text):
            yield line, "typedef is for ids and bit patterns only; structs have tags"


def rule_op(source, tree):
    match = re.match(r"kernels/(\w+)\.h$", source.path)
    if match and "Not an op." not in " ".join(source.lines[:6]):
        yield from check_op_header(source, tree, match.group(1))
    elif match and f"kernels/twins/{match.group(1)}.c" in tree:
        yield 1, f"says that it is not an op, but kernels/twins/{match.group(1)}.c exists"
    match = re.match(r"kernels/twins/(\w+)\.c$", source.path)
    contracts = [f"kernels/{match.group(1)}.h", source.path[:-2] + ".h"] if match else []
    if match and not any(path in tree for path in contracts):
        yield 1, f"neither the twin of {contracts[0]} nor shared by twins ({contracts[1]})"


def check_op_header(source, tree, op):
    if not source.lines[1:] or not source.lines[1].startswith(f"// {op}.h -- op: "):
        yield 2, f"the head is not '// {op}.h -- op: <formula>', nor does it say 'Not an op.'"
        return
    kernel = any(re.match(rf"kernels/{op}(_\w+)?\.cu$", path) for path in tree)
    for field in OP_FIELDS + (KERNEL_FIELDS if kernel else ()):
        if not any(re.match(rf"//   {field}\s+\S", line) for line in source.lines):
            yield 2, f"no '{field}' line in the head comment"
    for needed in (f"kernels/twins/{op}.c", f"tests/kernels/{op}_test.c"):
        if needed not in tree:
            yield 1, f"no {needed}"


def rule_test(source, tree):
    path = source.path
    if path.startswith("tests/"):
        if re.search(r"_test\.(c|cu|py)$", path):
            yield from check_test_file(source)
        return
    if source.kind != ".c":
        return
    stem = re.sub(r"^kernels/twins/", "kernels/", path[:-2])
    if f"tests/{stem}_test.c" in tree:
        if path in COVERED_BY:
            yield 1, "has a test of its own now: take it off COVERED_BY in tests/tidy_rules.py"
    elif path not in COVERED_BY:
        yield 1, f"no tests/{stem}_test.c, and no entry in COVERED_BY in tests/tidy_rules.py"
    elif COVERED_BY[path] not in tree:
        yield 1, f"COVERED_BY names {COVERED_BY[path]}, which does not exist"


def check_test_file(source):
    if source.kind == ".py":
        if not re.search(r"\bassert\b|\.assert\w+\(|\braise\b|sys\.exit\(", source.text):
            yield 1, "a test without an assertion cannot fail"
        return
    if not ASSERTION.search(source.code):
        yield 1, "a test without an assertion cannot fail"
    for number, line in enumerate(source.lines, 1):
        if re.match(r"\s*(//|/\*)\s*assert_\w+\s*\(", line):
            yield number, "an assertion that is commented out"
        if EMPTY_ASSERTION.search(line):
            yield number, "an assertion that cannot fail"


def rule_plant(source, tree):
    """Planted bugs in the sources and their lines in tests/plants.txt belong together."""
    if not source.is_c:
        return
    for number, line in enumerate(source.code.split("\n"), 1):
        for name in re.findall(r"\bPLANT_(\w+)", line):
            if source.kind not in (".c", ".cu") or source.path.startswith("tests/"):
                yield number, f"planted bug {name}: the build plants in .c and .cu files only"
            elif name not in tree.plants:
                yield number, f"planted bug {name} has no line in tests/plants.txt"


RULES = {"text": rule_text, "columns": rule_columns, "head": rule_head, "size": rule_size,
         "include": rule_include, "pure": rule_pure, "contract": rule_contract,
         "typedef": rule_typedef, "op": rule_op, "test": rule_test, "plant": rule_plant}


# ---------------------------------------------------------------- the run
class Tree(dict):
    """path -> Source of every text file; other files as keys of `listed`."""

    def __init__(self, root):
        super().__init__()
        self.root = root
        self.plants = {}
        for path in list_files(root):
            if path.startswith(DATA_FOLDERS):
                continue
            kind = os.path.splitext(path)[1]
            if kind in C_KINDS + (".py", ".sh", ".cmake", ".md", ".yaml", ".yml", ".service") \
                    or os.path.basename(path) in ("CMakeLists.txt", "Dockerfile") \
                    or path == ".ci/run":
                self[path] = Source(root, path)
        self.read_plants()

    def read_plants(self):
        path = os.path.join(self.root, "tests/plants.txt")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if line.strip() and not line.startswith("#"):
                        self.plants[line.split()[0]] = number


def list_files(root):
    """Files git would track, or all files where there is no git; sorted, from the root."""
    if os.path.exists(os.path.join(root, ".git")) and shutil.which("git"):
        run = subprocess.run(["git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"],
                             stdout=subprocess.PIPE)
        paths = set(run.stdout.decode().split("\0"))
        if run.returncode == 0:
            return sorted(p for p in paths if p and os.path.isfile(os.path.join(root, p)))
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def format_tool():
    """clang-format of version 14, or None; another version formats otherwise."""
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    said = subprocess.run([tool, "--version"], stdout=subprocess.PIPE).stdout if tool else b""
    return tool if b"version 14" in said else None


def format_findings(tree):
    """What clang-format 14 would change."""
    tool = format_tool()
    if tool is None:
        print("tidy: no clang-format 14 here, format not checked")
        return
    paths = [path for path in tree if tree[path].is_c]
    for first in range(0, len(paths), 50):
        run = subprocess.run([tool, "--dry-run", "-Werror", *paths[first:first + 50]],
                             cwd=tree.root, stderr=subprocess.PIPE)
        lines = set(re.findall(r"^([^:\n]+):(\d+):\d+: error", run.stderr.decode(), re.M))
        first_of = {}
        for path, line in lines:
            first_of[path] = min(first_of.get(path, int(line)), int(line))
        for path, line in sorted(first_of.items()):
            yield path, line, "format", f"clang-format-14 -i {path}"
        if run.returncode != 0 and not lines:
            yield paths[first], 1, "format", run.stderr.decode().strip()[:200]


def find_all(tree, exceptions, with_format=True):
    """All findings, less the exceptions; an exception that hides nothing is a finding too."""
    findings, used = [], set()
    for path, source in tree.items():
        for name, rule in RULES.items():
            for line, text in rule(source, tree):
                if (name, path) in exceptions:
                    used.add((name, path))
                else:
                    findings.append((path, line, name, text))
    for rule, path in exceptions:
        if (rule, path) not in used:
            findings.append((path, 1, rule, "no longer needs its exception: take it off the list"))
    for path in COVERED_BY:
        if path not in tree and tree.root == own_root():
            findings.append((path, 1, "test", "is in COVERED_BY but does not exist"))
    used_plants = " ".join(s.code for s in tree.values())
    for plant, line in tree.plants.items():
        if not re.search(rf"\bPLANT_{plant}\b", used_plants):
            findings.append(("tests/plants.txt", line, "plant", f"no source plants {plant}"))
    if with_format:
        findings += list(format_findings(tree))
    return sorted(findings)


def own_root():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description="STYLE.md as a test")
    parser.add_argument("--root", default=own_root())
    parser.add_argument("--no-format", action="store_true", help="do not run clang-format")
    parser.add_argument("--self-test", action="store_true", help="run tests/tidy_test.py")
    parser.add_argument("paths", nargs="*", help="tell findings of these files or folders only")
    options = parser.parse_args()
    if options.self_test:
        test = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tidy_test.py")
        return subprocess.run([sys.executable, test]).returncode
    tree = Tree(os.path.abspath(options.root))
    findings = find_all(tree, EXCEPTIONS, not options.no_format)
    if options.paths:
        findings = [f for f in findings if f[0].startswith(tuple(options.paths))]
    for path, line, rule, text in findings:
        print(f"{path}:{line}: {rule}: {text}")
    functions = sum(len(source.functions) for source in tree.values())
    print(f"tidy: {len(tree)} files, {functions} C functions, {len(EXCEPTIONS)} exceptions, "
          f"{len(findings)} findings")
    if functions == 0:
        print("tidy: no function was found at all: the reader is broken")
        return 1
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
