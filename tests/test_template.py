"""Placeholders in shell commands, with real shells: values arrive unchanged, as part of one word, and run nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from rbit.template import PLACEHOLDERS, parse, setting_variables

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
    ("case %ID in %ID) probe '%ID';; *) probe no;; esac", ["V"]),
    ("case in in in) probe %ID;; esac", ["V"]),
    ('probe "${x:-%ID}" ${x:-%ID} "${x:-"%ID"}" "${x:-a \'%ID\'}"', ["V", "V", "V", "a 'V'"]),
    ("probe ${x:-'%ID'} ${x:-a\"%ID\"} ${x:-\"${y:-%ID}\"}", ["V", "aV", "V"]),
    ("y=a%ID; probe \"${y#a%ID}\" \"${y#a}x\" \"${y%%%ID}\" \"${y%%'%ID'}\" \"${y%%%%%ID}\"", ["", "Vx", "a", "a", "a"]),
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

REFUSED = """eval "echo %ID"
eval x "$(foo %ID)"
\\eval %ID
X=1 "eval" '%ID'
sh -c 'echo %ID'
/bin/sh -c "echo %ID"
bash -lc 'echo %ID'
bash --norc -o errexit -exc %ID
sh -c -e %ID
busybox sh -c %ID
"$SHELL" -c 'echo %ID'
ssh host echo %ID
ssh -p 22 %ID
exec sh -c %ID
command eval %ID
builtin eval %ID
env -i A=b PATH=/bin sh -c %ID
env -S "echo %ID"
nohup nice -n 5 setsid ksh -c '%ID'
sudo -u x ssh host %ID
sudo --user x sh -c %ID
timeout -k 5 10 sh -c %ID
time -p zsh -c %ID
stdbuf -oL dash -c %ID
xargs -0 -n 1 sh -c '%ID'
find . -name x -exec sh -c 'echo %ID' \\; -print
flock /tmp/lock sh -c %ID
flock /tmp/lock -c 'echo %ID'
ionice -c 3 mksh -c %ID
chroot /srv ash -c %ID
timeout $T sh -c %ID
VAR=x sh -c %ID
su -c 'echo %ID' user
su - user --command="echo %ID"
su -lc%ID user
trap 'rm %ID' EXIT
watch -n 1 "ls %ID"
echo "$(sh -c 'echo %ID')"
echo `sh -c 'echo %ID'`
if ! sh -c %ID; then :; fi
for x do eval %ID; done
case a in a) eval %ID;; esac
true && { eval %ID; }
f() { sh -c %ID; }
x=$(case a in a) sh -c %ID;; esac)
sh <<EOF@%ID@EOF
bash -s a <<-'EOF'@%ID@EOF
ssh host <<EOF@%ID@EOF
cat <<EOF | sh@"%ID"@EOF
{ sh; } <<EOF@$(echo %ID)@EOF
. /dev/stdin <<EOF@%ID@EOF
echo "rm %ID" | sudo sh
printf %s %ID | ssh host bash
echo $((%ID + 1))
echo $(( $(wc -c <%ID) + 1 ))
((%ID))
[[ %ID -eq 1 ]]
echo $[%ID]
echo $'a%ID'
echo $'\\' %ID ''
echo $(cat <<EOF)@%ID@EOF
cat <<%ID@x@%ID
echo ${x%ID}
echo ${x:%ID}
echo ${x/%ID/}
echo ${%ID}"""

ACCEPTED = """echo eval %ID
echo ssh %ID
sh script %ID
sh -e script -c %ID
sh -c 'echo "$1"' sh %ID
bash -lc 'echo "$@"' bash %ID "%URI"
sh -c 'cat' <%ID
timeout 10 grep ssh %ID
find . -name ssh -o -name %ID
find . -name %ID -exec sh -c 'cat "$1"' sh {} ;
xargs grep eval %ID
env A=%ID printenv A
su user -c 'make' <%ID
printf '%s' %ID | ssh host cat
for eval in %ID; do :; done
case eval in %ID) ;; esac
cat %ID # sh -c '
echo $( (echo %ID) )
python3 script.py -c %ID
awk -v name=%ID '{ print name }' file
date +%Y-%m-%d"""


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

    def run_text(self, shell: list[str], text: str, values: dict[str, str], called: bool = True) -> list[list[str]]:
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
        for seed in range(40):
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
        tokens = [
            "%ID", "%ID", "'", '"', '"', "$(", ")", "`", "\\", "${x:-", "${x#", "}", "$((", "))", "eval ", "sh ",
            " -c ", "echo ", "case a in a) ", ";; esac", "{ ", "; }", "cat <<E\n", "\nE\n", "<<'E'\n", "| sh", "&&",
            "\n", " ", " ", " # ", "$'", "$", "for i in a; do ", "done", "[[ ", "x=", "exec ", "trap ", "(", "command ",
        ]  # fmt: skip
        source = random.Random(7)
        run = 0
        for _ in range(3000):
            template = parse("".join(source.choices(tokens, k=source.randint(2, 12))))
            if template.names and not template.mistakes:
                shell = source.choice(SHELLS)
                if subprocess.run([*shell, "-n", "-c", template.text], capture_output=True, check=False).returncode == 0:
                    run += 1
                    self.run_text(shell, template.text + "\nprobe", {"ID": source.choice(NASTY)}, called=False)
        self.assertGreater(run, 100)


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
             "case a in b|a) {} ;; esac", "for i in 1; do {}; done", ": \\' && {}", "X='%ID' {}", "! {}", "{} # ' `"]
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
            return self.random.choice([("a", "a"), ("\\'", "'"), ("\\ ", " "), ("%%", "%"), ("\\$", "$"), ("x#", "x#")])
        if kind == "s":
            source, value = self.placeholder()
            text = self.random.choice(['"', "(", "`", " # ", "\\", "$", ")"])
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
            return self.random.choice([("'", "'"), (" # ", " # "), ('\\"', '"'), ("\\\\", "\\"), ("\\$", "$"), (")", ")")])
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


class MistakesAndWarnings(unittest.TestCase):
    def test_placeholder_in_text_that_is_parsed_once_more_is_refused(self) -> None:
        for command in REFUSED.splitlines():
            with self.subTest(command):
                mistakes = parse(command.replace("@", "\n")).mistakes
                self.assertTrue(mistakes)
                self.assertTrue(all(mistake.startswith("%ID ") for mistake in mistakes), mistakes)

    def test_placeholder_beside_such_a_text_is_accepted(self) -> None:
        for command in ACCEPTED.splitlines():
            with self.subTest(command):
                template = parse(command)
                self.assertEqual(template.mistakes + template.warnings[command.count("#") :], ())

    def test_refusal_says_how_to_pass_the_value(self) -> None:
        self.assertIn("""sh -c '... "$1" ...' sh %ID""", parse("bash -c 'echo %ID'").mistakes[0])
        self.assertIn("an argument of `eval`", parse("eval %ID").mistakes[0])
        self.assertIn("on standard input", parse("ssh host %ID").mistakes[0])

    def test_unknown_name_of_two_letters_is_refused_with_a_guess(self) -> None:
        self.assertIn("did you mean %VERSION? Write %%VERSON for the literal", parse("echo %VERSON").mistakes[0])
        self.assertIn("%IDX", parse("echo '%IDX'").mistakes[0])
        self.assertEqual(parse("date +%Y-%m; printf %s %X %%ZZ %").mistakes, ())

    def test_surprising_places_are_warned_of(self) -> None:
        for command, words in (
            ("cat <<E\n%ID\nE", "here-document"),
            ("cat <<'E'\n%ID\nE", "quoted delimiter"),
            ("echo `echo %ID`", "backquotes"),
            ("%ID.pdf", "command word"),
            ("sudo -u x ./%ID", "command word"),
            ("awk '{ print \"%ID\" }' x", "`awk`"),
            ("sed -n -e s/%ID/x/ y", "`sed`"),
            ("python3 -c 'print(\"%ID\")'", "`python3`"),
            ("nice perl -we '%ID'", "`perl`"),
            ("cat x # %ID", "comment"),
            ("echo \\%ID", "backslash"),
            ("x=a.b.c; echo ${x%%.*} %ID", "${x%%...}"),
        ):
            with self.subTest(command):
                template = parse(command)
                self.assertEqual(template.mistakes, ())
                self.assertEqual([words in warning for warning in template.warnings], [True], template.warnings)

    def test_placeholder_that_no_shell_expands_needs_no_value(self) -> None:
        template = parse("cat x <<'E' # %URI\n%ID\nE")
        self.assertEqual((template.text, template.names), ("cat x <<'E' # %URI\n%ID\nE", frozenset()))

    def test_broken_text_does_no_harm(self) -> None:
        broken = ["'", '"', "`", "$(", "${", "$((", "$'", "<<", "<<E", "case", "case x in", ")", "))", "}", "\\", "%",
                  "$", "a)", ";;", "esac", "$(case a in", "((", "]]", "<<<", ">", "|", "${x", "${x%", "%%%"]  # fmt: skip
        for text in broken:
            for command in (text, f"echo {text}", f"{text}%ID", f"%ID{text}", f'"{text}', f"$({text}", f"%ID `{text}\n"):
                self.assertIsInstance(parse(command).text, str)
        for opening in ("$(", '"$(', "`", "${x:-", "(", "{ ", "case x in a) ", '"${x:-"', "$(("):
            parse(opening * 5000 + "%ID")
        self.assertIn("into a script", parse('"$(' * 100 + "%ID").mistakes[0])


class Settings(unittest.TestCase):
    def test_setting_becomes_a_variable_in_upper_case(self) -> None:
        settings = {"python": "/usr/bin/python2.4", "out-dir.1": "", "é": "x"}
        expected = {"RBIT_SETTING_PYTHON": "/usr/bin/python2.4", "RBIT_SETTING_OUT_DIR_1": "", "RBIT_SETTING__": "x"}
        self.assertEqual(setting_variables(settings), (expected, []))

    def test_settings_that_collide_or_hold_a_nul_are_mistakes(self) -> None:
        variables, mistakes = setting_variables({"a-b": "1", "a_b": "2", "c": "x\0y"})
        self.assertEqual(variables, {"RBIT_SETTING_A_B": "1"})
        self.assertIn("a-b becomes RBIT_SETTING_A_B too", mistakes[0])
        self.assertIn("NUL", mistakes[1])


if __name__ == "__main__":
    unittest.main()
