#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tidy_test.py -- plants every kind of violation in a small clean tree and shows it is caught.

The clean tree must give no finding; each planted tree must give exactly the finding it names, so a
rule that cannot fail, and a rule that fires on everything, both fail here.
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tidy  # noqa: E402

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"

OP_H = SPDX + """// double.h -- op: y[t,i] = 2 x[t,i]
//
//   shape   x, y [tokens, hidden] f32
//   needs   tokens >= 1
//   launch  grid tokens; block 256
//   moves   8 * tokens * hidden bytes
//   limit   HBM
//   error   none: doubling is exact
//   source  arithmetic
#pragma once

void double_row(float *y, const float *x, int tokens, int hidden);
"""

CLEAN = {
    "parallel/base/ring.h": SPDX + """// ring.h -- a bounded queue of numbers. Owns its storage.
#pragma once

#include <stdint.h>

typedef struct {
    uint32_t i;
} ring_id;

// Puts value at the end; 0 when full.
int ring_put(uint32_t value);
int ring_take(uint32_t *out); // 0 when empty
""",
    "parallel/base/ring.c": SPDX + """// ring.c -- the queue's code.
#include "parallel/base/ring.h"

int ring_put(uint32_t value)
{
    return value != 0;
}
""",
    "parallel/base/clock.h": SPDX + """// clock.h -- the time, for those who may know it.
#pragma once

#include <time.h>
""",
    "parallel/config.h": SPDX + "// config.h -- the config of a model.\n#pragma once\n",
    "parallel/wire/socket.h": SPDX + "// socket.h -- sockets of the wire.\n#pragma once\n",
    "worker/model.h": SPDX + "// model.h -- the model as calls.\n#pragma once\n",
    "tests/fixtures/tree.h": SPDX + "// tree.h -- what tests share.\n#pragma once\n",
    "kernels/double.h": OP_H,
    "kernels/double_row.cu": SPDX + "// double_row.cu -- one row per block.\n#include <cuda.h>\n",
    "kernels/twins/double.c": SPDX + """// double.c -- the twin of double.
#include "kernels/double.h"
""",
    "kernels/types.h": SPDX + "// types.h -- plain bits. Not an op.\n#pragma once\n",
    "tests/kernels/double_test.c": SPDX + """// double_test.c -- two is twice one.
void test_double(void)
{
    assert_int_equal(2 * one(), two());
}
""",
    "tests/parallel/base/ring_test.c": SPDX + """// ring_test.c -- the queue is bounded.
void test_ring(void)
{
    assert_true(ring_put(1));
}
""",
    "coordinator/core.c": SPDX + """// core.c -- events in, actions out.
#include <stdio.h>

#include "parallel/base/ring.h"

static const int limits[] = {1, 2};

int core_step(char *text, int n)
{
    return snprintf(text, 8, "%d", n + limits[0]);
}
""",
    "tests/coordinator/core_test.c": SPDX + """// core_test.c -- a step is a step.
void test_core(void)
{
    assert_int_equal(core_step(0, 1), 1);
}
""",
    "tests/plants.txt": "# name, test\nring_full ring_test\n",
    "parallel/base/log.c": SPDX + """// log.c -- lines for people.
#ifdef PLANT_ring_full
#endif
""",
    "tests/parallel/base/log_test.c": SPDX + "// log_test.c -- one line each.\nint x(void)\n"
                                             "{\n    assert_true(x());\n}\n",
    "tests/run.sh": "#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\n"
                    "# run.sh -- all tests in one command.\n",
    "tests/load_test.py": "# SPDX-License-Identifier: Apache-2.0\n"
                          '"""load_test.py -- loads the thing."""\nassert __name__\n',
    "STYLE.md": "a page without rules on its own words\n",
}

LONG_C = "void ring_long(void)\n{\n" + "    ring_put(1);\n" * 69 + "}\n"
LONG_CU = "__global__ void double_row(float *y)\n{\n" + "    y[0] += 1;\n" * 149 + "}\n"
SIX = "int ring_many(int a, int b, int c, int d, int e, void (*f)(int, int))\n{\n    return a;\n}\n"
SEVEN = SIX.replace("int b,", "int b, int b2,")
NINE = ("void double_many(struct stream *stream, int a, int b, int c, int d, int e, int f,\n"
        "                 int g{})\n{{\n}}\n")

# what is planted, file, function of its old text (or None: the file goes), the rule that says so,
# a word of its finding. Rule None: must stay clean.
def add(text):
    return lambda old: old + text


def swap(old_part, new_part):
    def change(old):
        assert old_part in old, f"the plant does not fit: {old_part!r}"
        return old.replace(old_part, new_part, 1)
    return change


def whole(text):
    return lambda old: text


RING_C, RING_H, CORE = "parallel/base/ring.c", "parallel/base/ring.h", "coordinator/core.c"
TEST_C = "tests/parallel/base/ring_test.c"
PLANTS = [
    ("wide line", RING_C, add("// " + "x" * 98 + "\n"), "columns", "101 columns"),
    ("widest line", RING_C, add("// " + "x" * 97 + "\n"), None, ""),
    ("tab", RING_C, add("\tint x;\n"), "text", "a tab"),
    ("trailing space", RING_C, add("int ring_x; \n"), "text", "spaces at the end"),
    ("to-do", RING_C, add("// TO" + "DO later\n"), "text", "TO" + "DO"),
    ("unfinished", RING_C, add("// Not imple" + "mented yet\n"), "text", "Not imple" + "mented"),
    ("outside path", RING_C, add("// see ../sha" + "red/x\n"), "text", "outside"),
    ("machine path", "tests/run.sh", add("cd /wo" + "rk/main\n"), "text", "outside"),
    ("design file", "STYLE.md", add("fine\n"), None, ""),
    ("no last newline", RING_C, add("// end"), "text", "no newline"),
    ("no SPDX", RING_C, swap("// SPDX", "// x"), "head", "first line"),
    ("no SPDX, script", "tests/run.sh", swap("# SPDX", "# x"), "head", "first line"),
    ("no head comment", RING_C, swap("// ring.c -- the queue's code.\n", ""), "head", "no head"),
    ("no docstring", "tests/load_test.py", swap('"""load_test.py -- loads the thing."""\n', ""),
     "head", "no head"),
    ("long function", RING_C, add(LONG_C), "size", "72 lines, the limit is 70"),
    ("function of 70", RING_C, add(LONG_C.replace("    ring_put(1);\n", "", 2)), None, ""),
    ("long kernel", "kernels/double_row.cu", add(LONG_CU), "size", "152 lines, the limit is 150"),
    ("kernel of 150", "kernels/double_row.cu",
     add(LONG_CU.replace("    y[0] += 1;\n", "", 2)), None, ""),
    ("long file", RING_C, add("\n" * 600), "size", "lines, the limit for .c is 600"),
    ("long header", RING_H, add("\n" * 250), "size", "lines, the limit for .h is 250"),
    ("long Python function", "tests/load_test.py", add("def f():\n" + "    f()\n" * 70), "size",
     "71 lines"),
    ("seven parameters", RING_C, add(SEVEN), "size", "takes 7 parameters, the limit is 6"),
    ("six parameters", RING_C, add(SIX), None, ""),
    ("launcher of nine", "kernels/twins/double.c", add(NINE.format(", int h")), "size",
     "takes 9 parameters, the limit is 8"),
    ("launcher of eight", "kernels/twins/double.c", add(NINE.format("")), None, ""),
    ("base includes wire", RING_C, add('#include "parallel/wire/socket.h"\n'), "include",
     "base may not include wire"),
    ("kernels include parallel", "kernels/twins/double.c", add('#include "parallel/config.h"\n'),
     "include", "kernels may not include config"),
    ("coordinator includes worker", CORE, add('#include "worker/model.h"\n'), "include",
     "coordinator may not include worker"),
    ("worker includes tests", "worker/model.h", add('#include "tests/fixtures/tree.h"\n'),
     "include", "worker may not include tests"),
    ("worker includes kernels", "worker/model.h", add('#include "kernels/double.h"\n'), None, ""),
    ("commented include", RING_C, add('/*\n#include "worker/model.h"\n*/\n'), None, ""),
    ("relative include", RING_C, add('#include "clock.h"\n'), "include", "not a path"),
    ("includes a source", CORE, add('#include "parallel/base/ring.c"\n'), "include", "source file"),
    ("own header late", RING_C, swap('#include', '#include <stdio.h>\n#include'), "include",
     "own header"),
    ("no zone", "parallel/odd.h", whole(CLEAN["worker/model.h"]), "include", "arrow table"),
    ("CUDA in the worker", "worker/model.h", add("#include <cuda_runtime.h>\n"), "include",
     "may not be seen here"),
    ("NCCL in a kernel", "kernels/double_row.cu", add("#include <nccl.h>\n"), "include",
     "may not be seen here"),
    ("clock in the core", CORE, swap("<stdio.h>", "<time.h>"), "pure", "includes time.h"),
    ("clock by another way", CORE, swap("base/ring.h", "base/clock.h"), "pure", "clock.h"),
    ("allocation", CORE, swap("return ", "free(text);\n    return "), "pure", "calls free"),
    ("output", CORE, swap("snprintf(text, 8,", "printf("), "pure", "calls printf"),
    ("errno", CORE, swap("n + ", "errno + "), "pure", "errno"),
    ("hidden state", CORE, swap("static const int", "static int"), "pure", "variable of its own"),
    ("impure name in a comment", CORE, add("// free(text) is the shell's\n"), None, ""),
    ("no pragma once", RING_H, swap("#pragma once\n", ""), "contract", "#pragma once"),
    ("no contract", RING_H, swap("// Puts value at the end; 0 when full.\n", ""), "contract",
     "ring_put has no contract"),
    ("no contract, inline", RING_H, add("\nstatic inline int ring_one(void)\n{\n    return 1;\n}"
                                        "\n"), "contract", "ring_one has no contract"),
    ("second function of an op", "kernels/double.h", add("\nint double_bytes(void);\n"), "contract",
     "double_bytes has no contract"),
    ("one contract for many", RING_H, add("".join(f"int ring_a{i}(void);\n" for i in range(6))),
     "contract", "share one contract"),
    ("typedef of a struct", RING_H, add("\ntypedef struct ring ring;\n"), "typedef", "typedef"),
    *[(f"no {field} field", "kernels/double.h", swap(f"//   {field}", "//   x"), "op",
       f"no '{field}' line") for field in tidy.OP_FIELDS + tidy.KERNEL_FIELDS],
    ("no op line", "kernels/double.h", swap(" -- op: ", " -- "), "op", "the head is not"),
    ("no twin", "kernels/twins/double.c", None, "op", "no kernels/twins/double.c"),
    ("no op test", "tests/kernels/double_test.c", None, "op", "no tests/kernels/double_test.c"),
    ("twin of nothing", "kernels/twins/types.c", whole(CLEAN["kernels/twins/double.c"]), "op",
     "says that it is not an op"),
    ("twin without contract", "kernels/twins/odd.c", whole(CLEAN["kernels/twins/double.c"]), "op",
     "neither the twin of"),
    ("no test", TEST_C, None, "test", "no tests/parallel/base/ring_test.c"),
    ("test without assertion", TEST_C, swap("assert_true(ring_put(1))", "ring_put(1)"), "test",
     "cannot fail"),
    ("assertion in a comment", TEST_C, swap("    assert_true", "    // assert_true"), "test",
     "commented out"),
    ("assertion of true", TEST_C, swap("ring_put(1)", "true"), "test", "cannot fail"),
    ("x equals x", TEST_C, swap("assert_true(ring_put(1))", "assert_int_equal(r.x, r.x)"), "test",
     "cannot fail"),
    ("Python test without", "tests/load_test.py", swap("assert __name__", "print()"), "test",
     "cannot fail"),
    ("plant without line", "parallel/base/log.c", swap("ring_full", "ring_odd"), "plant",
     "ring_odd has no line"),
    ("plant in a header", RING_H, add("#ifdef PLANT_ring_full\n#endif\n"), "plant", "in .c and"),
    ("line without plant", "tests/plants.txt", add("ghost ring_test\n"), "plant", "ghost"),
]


def write_tree(root, files):
    for path, text in files.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(text)


def findings_of(files, exceptions=None, with_format=False):
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, files)
        return tidy.find_all(tidy.Tree(root), exceptions or {}, with_format)


def check_plant(what, path, change, rule, word):
    """None, or why the plant was not caught as it should be."""
    files = dict(CLEAN)
    if change is None:
        del files[path]
    else:
        files[path] = change(files.get(path, ""))
    found = findings_of(files)
    if rule is None:
        return f"{what}: should be clean, but {found[0]}" if found else None
    if not any(f[2] == rule and word in f[3] for f in found):
        return f"{what}: no '{rule}' finding with '{word}'; found {found}"
    return None


def check_exceptions():
    """An exception hides its finding; one that hides nothing is a finding."""
    wide = dict(CLEAN)
    wide[RING_C] += "// " + "x" * 98 + "\n"
    if findings_of(wide, {("columns", RING_C): "a reason"}):
        return "an exception does not hide its finding"
    stale = findings_of(CLEAN, {("columns", RING_C): "none"})
    if not any("no longer needs" in finding[3] for finding in stale):
        return "an exception that hides nothing is not told"
    return None


def check_format():
    """A misformatted file is told where clang-format 14 is there; elsewhere the rule is silent."""
    ugly = dict(CLEAN)
    ugly[RING_C] = ugly[RING_C].replace("    return", "  return")
    ugly[".clang-format"] = "BasedOnStyle: LLVM\nIndentWidth: 4\nBreakBeforeBraces: Linux\n"
    told = [f for f in findings_of(ugly, with_format=True) if f[2] == "format"]
    seen = [f[0] for f in told]
    if tidy.format_tool() and RING_C not in seen:
        return f"bad format is not told: {told}"
    return None


def main():
    problems = []
    clean = findings_of(CLEAN)
    if clean:
        problems.append(f"the clean tree is not clean: {clean}")
    problems += [p for p in (check_plant(*plant) for plant in PLANTS) if p]
    problems += [p for p in (check_exceptions(), check_format()) if p]
    rules = {plant[3] for plant in PLANTS if plant[3]}
    problems += [f"rule {rule} has no plant" for rule in tidy.RULES if rule not in rules]
    for problem in problems:
        print(f"tidy_test: {problem}")
    print(f"tidy_test: {len(PLANTS) + 3} checks, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
