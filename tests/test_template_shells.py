"""Placeholders in shell commands, with real shells: values arrive unchanged and run nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from rbit.template import PLACEHOLDERS, parse

SHELLS = [["/bin/sh"], *(words for words in (["bash"], ["bash", "--posix"]) if shutil.which("bash"))]
PROBE = "#!/bin/sh\nprintf '%s\\0' $# \"$@\" >>\"$PROBED\"\n"
NASTY = [
    "$(touch CANARY)`touch CANARY`;touch CANARY\ntouch CANARY\n",
    "a b  c\t'\"\\' \" * ~ ? [a-z] {a,b} & | > CANARY #!$x ${x} $$ %ID %%",
    "-rf",
    "",
    "\n",
    "\\",
    "'; touch CANARY; '",
    '"; touch CANARY; "',
    ")}; touch CANARY; esac",
    "\nEOF\ntouch CANARY\n",
    "żółć \u0101\u0102\u0103 \U0001f600 \x01\x02\x7f\x1b",
    "*",
]

# What a command hands to the probe, call by call; V stands for the value of %ID, W for that of %URI.
ARRIVES = [
    ("probe %ID", ["V"]),
    ("probe a%ID.b %ID_%URI.pdf ./%ID", ["aV.b", "V_W.pdf", "./V"]),
    ('probe "%ID" "a %ID %URI" "%ID""%ID"', ["V", "a V W", "VV"]),
    ("probe '%ID' 'a %ID %URI' 'x'%ID", ["V", "a V W", "xV"]),
    ("probe '$(%ID$(' '`%ID)' \"$( probe '$(%ID')\"", ["$(V"], ["$(V$(", "`V)", ""]),
    ("probe \\'%ID \\\"%ID\\\" \"\\\\%ID\" \"\\\"%ID\" '\\'%ID", ["'V", '"V"', "\\V", '"V', "\\V"]),
    ('probe \\%ID "\\%ID" \\\\%ID', ["V", "\\V", "\\V"]),
    ('probe "$%ID" $%ID \'$%ID\' "a$"%ID', ["$V", "$V", "$V", "a$V"]),
    ("probe a#%ID '#'%ID #%ID don't", ["a#V", "#V"]),
    ('probe "$(probe "b %ID") %ID"', ["b V"], [" V"]),
    ("""probe "$(probe '%ID' "c '%ID'" %ID)%ID" '%ID'""", ["V", "c 'V'", "V"], ["V", "V"]),
    ('probe "$(printf "%s." "$(printf "%s." %ID)")"', ["V.."]),
    ("probe $(# don't )\n probe %ID) x%ID", ["V"], ["xV"]),
    ("probe $(case a in (a) probe %ID;; b) x;; esac)%ID", ["V"], ["V"]),
    ("probe $(case a in b|a) probe %ID;; esac; probe '%ID')'%ID'", ["V"], ["V"], ["V"]),
    ('probe "$(case a in b) ;; a) probe "%ID x";; esac)"', ["V x"], [""]),
    ("cat <<E >/dev/null\na\\\nE\n'\nE\nprobe '%ID'", ["V"]),
    ("case %ID in %ID) probe '%ID';; *) probe no;; esac", ["V"]),
    ("case in in in) probe %ID;; esac", ["V"]),
    ('probe "${x:-%ID}" ${x:-%ID} "${x:-"%ID"}" "${x:-a \'%ID\'}"', ["V", "V", "V", "a 'V'"]),
    ("probe ${x:-'%ID'} ${x:-a\"%ID\"} ${x:-\"${y:-%ID}\"}", ["V", "aV", "V"]),
    ("y=a%ID; probe \"${y#a%ID}\" \"${y#a}x\" \"${y%%%ID}\" \"${y%%'%ID'}\" \"${y%%%%%ID}\"",
     ["", "Vx", "a", "a", "a"]),
    ('y="%ID*"; probe "${y#*}" "${y%%"*"}" "${y%%\\*}"', ["V*", "V", "V"]),
    ('[ "$$%ID" = "$$"%ID ] && probe "${x}%ID" $x%ID', ["V", "V"]),
    ("if true; then probe %ID; fi && (probe '%ID'; { probe \"%ID\"; })", ["V"], ["V"], ["V"]),
    ("for f in %ID '%URI'; do probe \"$f\"; done", ["V"], ["W"]),
    ("f() { probe \"$1\"; }; f %ID; f '%ID'", ["V"], ["V"]),
    ("X=%ID Y='%ID' Z=\"%ID\" env sh -c 'probe \"$X\" \"$Y\" \"$Z\"'", ["V", "V", "V"]),
    ('sh -c \'probe "$1" "$2"\' sh %ID "%URI"', ["V", "W"]),
    ("printf '%s\\n' x | while read -r x; do probe \"$x\" %ID; done", ["x", "V"]),
    ('probe "$(cat <<EOF\n"%ID" \\$x %%ID $%ID.\nEOF\n)"', ['"V" $x %ID $V.']),
    ("cat <<A >/dev/null; cat <<-'B' >/dev/null\n'%URI\nA\n\tdon't %ID\n\tB\nprobe %ID '%ID'", ["V", "V"]),
    ("probe \"$(cat <<E\n%ID)'.\nE\n)\" '%ID'", ["V)'.", "V"]),
    ("probe \"`printf '%s.' %ID`\" \"`printf \"%s.\" \"%ID\"`\"", ["V.", "V."]),
    ("probe \"`printf '%s.' \"\\`printf '%s.' '%ID'\\`\"`\"", ["V.."]),
    ('probe "`printf %s \\"%ID.\\" \\$x`" x', ["V.", "x"]),
    ("probe %ID>/dev/null 2>&1 </dev/null; probe %ID&&probe %ID;probe %ID", ["V"], ["V"], ["V"], ["V"]),
    ("probe \\\n  %ID \\\n'%ID'", ["V", "V"]),
    ("probe %% %%ID %s 100% %5 %Y-%m-%dT%H: '%%ID' \"%%%ID\" %%%%", ["%", "%ID", "%s", "100%", "%5",
     "%Y-%m-%dT%H:", "%ID", "%V", "%%"]),
    ("[ %ID = '%ID' ] && probe \"%ID\"", ["V"]),
    ("set -- %ID; probe \"$@\" \"${1}\"", ["V", "V"]),
]  # fmt: skip

class _Shells(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        probe = self.folder / "bin" / "probe"
        probe.parent.mkdir()
        probe.write_text(PROBE)
        probe.chmod(0o755)
        (self.folder / "work").mkdir()

    def run_text(
        self, shell: list[str], text: str, values: dict[str, str], called: bool = True
    ) -> list[list[str]]:
        """Run the text and return the arguments of each call of the probe."""
        probed = self.folder / "probed"
        probed.write_bytes(b"")
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PROBED": str(probed),
            **{PLACEHOLDERS[name]: value for name, value in values.items()},
        }
        ended = subprocess.run(
            [*shell, "-c", text], env=environment, cwd=self.folder / "work", stdin=subprocess.DEVNULL,
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        self.assertEqual(os.listdir(self.folder / "work"), [], f"{shell} ran a value: {text!r} {values}")
        fields = probed.read_bytes().decode().split("\0")[:-1]
        calls: list[list[str]] = []
        while fields:
            count = int(fields.pop(0))
            calls.append(fields[:count])
            del fields[:count]
        if called and not calls:
            self.fail(f"{shell} never called the probe: {text!r}: {ended.stderr!r}")
        return calls


class ValuesArriveUnchanged(_Shells):
    def check(self, shell: list[str], command: str, calls: list[list[str]], values: dict[str, str]) -> None:
        template = parse(command)
        self.assertEqual(template.mistakes, (), command)
        found = self.run_text(shell, template.text, values)
        self.assertEqual(found, calls, f"{shell} {command!r} became {template.text!r}")

    def test_value_arrives_as_part_of_one_word_wherever_its_placeholder_stands(self) -> None:
        for shell in SHELLS:
            for value in NASTY if shell == SHELLS[0] else NASTY[:4]:
                filled = {"V": value, "W": NASTY[1]}
                for command, *expected in ARRIVES:
                    calls = [[re.sub("[VW]", lambda m: filled[m[0]], word) for word in call] for call in expected]  # noqa: B023
                    self.check(shell, command, calls, {"ID": value, "URI": NASTY[1]})

    def test_value_arrives_in_random_nested_commands(self) -> None:
        for seed in range(12):
            generator = _Generator(seed)
            commands = [generator.probe(4) for _ in range(8)]
            for shell in SHELLS:
                self.check(shell, "\n".join(commands), generator.calls, generator.values)

    def test_every_placeholder_has_its_variable(self) -> None:
        template = parse("probe " + " ".join(f"%{name}" for name in PLACEHOLDERS))
        self.assertEqual(template.names, set(PLACEHOLDERS))
        values = {name: f"value of {name}" for name in PLACEHOLDERS}
        self.assertEqual(self.run_text(SHELLS[0], template.text, values), [list(values.values())])

    def test_no_value_is_run_in_random_text(self) -> None:
        # No lone parenthesis: a random function that calls itself would fork without end.
        tokens = [
            "%ID", "%ID", "'", '"', '"', "$(", ")", "`", "\\", "${x:-", "${x#", "}", "$((", "))", "eval ",
            "sh ", " -c ", "echo ",
            "case a in a) ", ";; esac", "{ ", "; }", "cat <<E\n", "\nE\n", "<<'E'\n",
            "| sh", "&&", "\n", " ", " ", " # ", "$'", "$", "for i in a; do ", "done", "[[ ", "x=", "exec ",
            "trap ", "command ",
        ]  # fmt: skip
        source = random.Random(7)
        run = 0
        for _ in range(3000):
            template = parse("".join(source.choices(tokens, k=source.randint(2, 12))))
            if template.names and not template.mistakes:
                shell = source.choice(SHELLS)
                checked = subprocess.run([*shell, "-n", "-c", template.text], capture_output=True, check=False)
                if checked.returncode == 0:
                    run += 1
                    self.run_text(shell, template.text + "\nprobe", {"ID": source.choice(NASTY)}, called=False)
        self.assertGreater(run, 80)


class _Generator:
    """Makes commands at random; ``calls`` is what the probe is to be given, in order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.values = {name: self.random.choice(NASTY) for name in ("ID", "URI")}
        self.calls: list[list[str]] = []

    def probe(self, depth: int) -> str:
        words = [self.word(depth) for _ in range(self.random.randint(1, 3))]
        self.calls.append([value for _, value in words])
        return self.wrapped("probe " + " ".join(source for source, _ in words))

    def wrapped(self, command: str) -> str:
        return self.random.choice(
            ["{}", "( {} )", "{{ {}; }}", "if :; then {}; fi", "case a in (a) {};; (b) :; esac", "# don't ) `\n{}",
             "case a in b|a) {} ;; esac", "for i in 1; do {}; done", ": \\' && {}", "X='%ID' {}", "! {}",
             "{} # ' `"]
        ).format(command) + self.random.choice(["", "\n"])  # fmt: skip

    def word(self, depth: int) -> tuple[str, str]:
        pieces = [self.piece(depth) for _ in range(self.random.randint(1, 3))]
        return "".join(source for source, _ in pieces), "".join(value for _, value in pieces)

    def placeholder(self) -> tuple[str, str]:
        name, value = self.random.choice(list(self.values.items()))
        return f"%{name}", value

    def piece(self, depth: int) -> tuple[str, str]:
        kind = self.random.choice("lpsdddb")
        if kind == "l":
            plain = self.random.choice(["a", "\\'", "\\ ", "%%", "\\$", "x#"])
            return plain, plain[-1] if plain != "x#" else plain
        if kind == "s":
            source, value = self.placeholder()
            text = self.random.choice(['"', "(", "`", " # ", "\\", ")"])
            return f"'{text}{source}{text}'", text + value + text
        if kind == "b" and depth:
            source, value = self.word(depth - 1)
            return f"${{unset:-{source}}}", value
        if kind == "d":
            inside = [self.quoted(depth) for _ in range(self.random.randint(1, 3))]
            return '"' + "".join(source for source, _ in inside) + '"', "".join(value for _, value in inside)
        return self.placeholder()

    def quoted(self, depth: int) -> tuple[str, str]:
        kind = self.random.choice("lpcbq") if depth else self.random.choice("lp")
        if kind == "l":
            plain = self.random.choice(["'", " # ", '\\"', "\\\\", "\\$", ")"])
            return plain, plain.strip("\\") or "\\"
        if kind == "p":
            return self.placeholder()
        if kind == "b":
            source, value = self.placeholder() if self.random.random() < 0.5 else self.quoted(depth - 1)
            # Bash outside of its POSIX mode wants apostrophes in such a place in pairs.
            return (f"${{unset:-{source}}}", value) if "'" not in source else (source, value)
        if kind == "q":
            # Shells have bugs of their own with deeper nests of these.
            name, value = self.placeholder()
            source = self.random.choice(["{}", "'{}'", '"{}"', "''{}", '\\"{}\\"', "'\\{}'"]).format(name)
            value = f'"{value}"' if source[0] == "\\" else f"\\{value}" if "\\" in source else value
            return "`" + re.sub(r"([\\`])", r"\\\1", f"printf '%s.' {source}") + "`", value + "."
        before = self.probe(depth - 1)
        source, value = self.word(depth - 1)
        command = self.wrapped(f"printf '%s.' {source}")
        return f"$( {before}\n{command}\n)", value + "."


if __name__ == "__main__":
    unittest.main()
