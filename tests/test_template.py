"""Placeholders in shell commands: what is refused, what is warned of, and the variables of settings."""

from __future__ import annotations

import unittest

from rbit.template import parse, setting_variables

# One command a line; @ stands for a newline.
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
$x command sh -c %ID
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
sh -c 'cd x; exec sh' <<EOF@%ID@EOF
echo %ID | ssh host 'cd x && exec bash -s'
{ sh; } <<EOF@$(echo %ID)@EOF
. /dev/stdin <<EOF@%ID@EOF
echo "rm %ID" | sudo sh
printf %s %ID | ssh host bash
$SUDO sh -c 'echo %ID'
sh -c $x %ID
sh -c $x -e %ID
sh -c %ID -c x
sh $x %ID -c x
sh -$x %ID
sh %ID %URI
sh "%ID"
${x:-sh -c %ID}
echo $((%ID + 1))
echo $(( $(wc -c <%ID) + 1 ))
((%ID))
[[ %ID -eq 1 ]]
echo $[%ID]
echo $'a%ID'
echo $'\\' %ID ''
echo $(cat <<EOF)@%ID@EOF
cat <<%ID@x@%ID
cat <<E |@%ID@E@sh
bash <<<%ID
cat <<E@${x#%ID}@E
echo ${x:`echo %ID`}
echo ${x%ID}
echo ${x:%ID}
echo ${x/%ID/}
echo ${%ID}"""

ACCEPTED = """echo eval %ID
echo ssh %ID
sh script %ID
sh -e $OPTIONS -c 'echo "$1"' sh %ID
sh -e script -c %ID
sh -c 'echo "$1"' sh %ID
bash -lc 'echo "$@"' bash %ID "%URI"
sh -c 'cat' <%ID
timeout 10 grep ssh %ID
echo %ID | sh <script
echo %ID | sh -c 'read -r x; cat "$x"'
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
        broken = ["'", '"', "`", "$(", "${", "$((", "$'", "<<", "<<E", "case", "case x in", ")", "))", "}", "\\",
                  "%", "$", "a)", ";;", "esac", "$(case a in", "((", "]]", "<<<", ">", "|", "${x", "${x%",
                  "%%%"]  # fmt: skip
        for text in broken:
            for around in ("{}", "echo {}", "{}%ID", "%ID{}", '"{}', "$({}", "%ID `{}\n"):
                self.assertLessEqual(parse(around.format(text)).names, {"ID"})
        for opening in ("$(", '"$(', "`", "${x:-", "(", "{ ", "case x in a) ", '"${x:-"', "$((", "<<E "):
            self.assertLessEqual(parse(opening * 5000 + "%ID").names, {"ID"})
        for opening in ("eval ", "env ", "find x {} -exec ", "wrap sh ", "env --x sh ", "$x "):
            self.assertTrue(parse(opening * 300 + "eval %ID").mistakes)
        self.assertIn("into a script", parse('"$(' * 100 + "%ID").mistakes[0])


class Settings(unittest.TestCase):
    def test_setting_becomes_a_variable_in_upper_case(self) -> None:
        settings = {"python": "/usr/bin/python2.4", "out-dir.1": "", "é": "x"}
        expected = {"PYTHON": "/usr/bin/python2.4", "OUT_DIR_1": "", "_": "x"}
        named = {f"RBIT_SETTING_{name}": value for name, value in expected.items()}
        self.assertEqual(setting_variables(settings), (named, []))

    def test_settings_that_collide_or_hold_a_nul_are_mistakes(self) -> None:
        variables, mistakes = setting_variables({"a-b": "1", "a_b": "2", "c": "x\0y"})
        self.assertEqual(variables, {"RBIT_SETTING_A_B": "1"})
        self.assertIn("a-b becomes RBIT_SETTING_A_B too", mistakes[0])
        self.assertIn("NUL", mistakes[1])


if __name__ == "__main__":
    unittest.main()
