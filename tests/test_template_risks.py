"""Commands in which a value may be parsed once more: refused, or run for real with hostile values."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from rbit.template import PLACEHOLDERS, parse

SHELLS = [shell for shell in ("/bin/sh", shutil.which("bash")) if shell]

# One command a line; @ stands for a newline.
REFUSED = r"""wrap sh -c 'echo %ID'
wrap -x --y=z busybox sh -c 'echo %ID'
setpriv --no-new-privs sh -c 'echo %ID'
prlimit --nofile=99 bash -ec "echo %ID"
setarch -R sh -c 'echo %ID'
docker run --rm -v x:y img sh -c 'echo %ID'
docker run --entrypoint sh img -c 'echo %ID'
docker run --entrypoint=/bin/sh img -ec 'echo %ID'
docker exec -i box sh <<E@%ID@E
docker run img env A=b sh -c 'echo %ID'
docker run img ssh host %ID
docker run img python3 -c 'print("%ID")'
podman exec box sh -c 'echo %ID'
nsenter -t 1 sh -c 'echo %ID'
eatmydata chpst -u a sh -c 'echo %ID'
start-stop-daemon --start --exec /bin/sh -- -c 'echo %ID'
screen -dm sh -c 'echo %ID'
tmux new-session -d 'echo %ID'
csh -c 'echo %ID'
tcsh -fc 'echo %ID'
fish --command='echo %ID'
./run.sh sh -c 'echo %ID'
sh run.sh sh -c 'echo %ID'
sh -c '"$@"' sh sh -c 'echo %ID'
sh -c '"$0" "$@"' sh -c 'echo %ID'
f() { "$@"; }; f eval 'echo %ID'
wrap sh %ID %URI
sudo --unknown x setpriv sh -c %ID
printf %s %ID | xargs -I{} sh -c 'echo {}'
echo %ID | xargs -0I X sh -c 'echo X'
echo %ID | xargs sh -c
echo %ID | xargs sh
find ./%ID -exec sh -c 'echo {}' \;
find . -name %ID -exec nice sh -c 'echo {}' \;
git -c alias.x='!echo %ID' x
git -C . -c core.pager=%ID log
git clone --upload-pack=%ID x y
make VAR=%ID
make -C %ID %URI
wrap make "VAR=%ID"
ex -c 'w %ID' file
vim +%ID file
ex -s file <<E@w %ID@E
ed file <<E@%ID@E
awk '{ print "%ID" }' file
awk -F: -vfoo=1 '{ print "%ID" }' file
awk -F f -e '{ print "%ID" }' file
sed s/%ID/x/ file
sed -n -i -e p -e "s/%ID/x/" file
perl -we 'print "%ID"'
nice perl -ne 'print "%ID"' file
python3 -c 'print("%ID")'
python3 <<E@print("%ID")@E
echo 'print("%ID")' | python3 -
ruby -e 'puts "%ID"'
node --eval 'x("%ID")'
php -r 'x("%ID");'
sqlite3 file "select '%ID'"
sqlite3 -cmd '.print %ID' file
echo "select '%ID';" | sqlite3 file
psql base -c "select '%ID'"
psql --comm="select '%ID'" base
mysql -e "select '%ID'"
tar cf x.tar --checkpoint-action=exec=%ID x
tar -I %ID -xf x.tar
split --filter 'cat >%ID' file
rsync -e 'ssh %ID' a b
scp file host:%ID
BASH_ENV=%ID bash -c :
export ENV=%ID
env LD_PRELOAD=%ID true
LD_LIBRARY_PATH='/a/%ID' true
sudo PYTHONSTARTUP=%ID python3 x
PERL5OPT=-M%ID perl x
IFS=%ID
PATH="%ID:$PATH" true
GIT_SSH_COMMAND=%ID git fetch
docker run -e BASH_ENV=%ID img bash x
for IFS in %ID; do :; done
PS4=%ID; set -x; :
test -v %ID
[ -v 'a[%ID]' ]
[ x = x -a -v %ID ]
[ %ID %URI ]
printf -v %ID x
printf -v%ID x
printf %ID x
command printf '%ID' x
read %ID <file
read -r a "b[%ID]" <file
mapfile -C %ID a <file
unset %ID
unset 'a[%ID]'
export %ID
export "a%ID=1"
declare 'a[%ID]=1'
declare -i n=%ID
declare -a a=%ID
declare -i n; n=%ID
typeset -in n; for n in %ID; do :; done
readonly %ID
a[%ID]=1
a["x%ID"]+=1
a=([%ID]=1 [2]=b)
OPTIND=%ID
RANDOM=%ID
let %ID
let "a=%ID"
[[ %ID -eq 1 ]]
[[ -v %ID ]]
echo $((%ID))
echo $((a[%ID]))
((a = %ID))
echo ${a[%ID]}
for ((i = %ID; i < 1; i++)); do :; done"""

ACCEPTED = r"""wrap sh -c 'echo "$1"' sh %ID
setpriv --no-new-privs sh -c 'echo "$1"' sh %ID
docker run --rm img sh -c 'echo "$1"' sh %ID
docker run -e ID=%ID --name x-%ID img build %ID
wrap --name=%ID x %URI
echo sh -c %ID
grep -c sh %ID
find . -name %ID -exec grep -l x {} +
find ./%ID -exec sh -c 'echo "$1"' sh {} \;
printf '%s\0' %ID | xargs -0 -I{} sh -c 'echo "$1"' sh {}
printf '%s\0' %ID | xargs -0 echo
git clone -- %URI %ID
git -c user.name=x commit -m %ID
git log --grep=%ID
make -C ./%ID
make -C %ID all
awk -v name=%ID '{ print name }' file
awk -f ./prog %ID
sed -n -f ./prog %ID
python3 script.py -c %ID
perl ./script -e %ID
sqlite3 ./%ID.db .tables
psql -v id=%ID -f file.sql
tar -cf %ID.tar -- %ID
rsync -e ssh file host:/srv/file-of-mine ./%ID
scp -s file host:%ID
curl --data-urlencode id=%ID http://127.0.0.1:9/?ENV=%ID
A=%ID ENVIRONMENT=%ID env B=%ID true
export A=%ID B='%ID'
readonly A="%ID"
declare -x A=%ID; echo "$A"
printf '%s\n' %ID %URI
printf -- '%s' %ID
printf 'x%ID'
[ %ID = %URI ]
[ -n %ID ] && [ ! -e ./%ID ]
test x%ID = x -o y = %ID
[ %ID -eq 1 ]
read -r a <./%ID
set -- %ID; echo "$@"
case %ID in [a-z]*) echo %ID;; esac
cd ./%ID && pwd
exit %ID
shift %ID
kill -0 -- %ID
umask %ID
echo %ID | python3 script.py
echo %ID | sed -e s/a/b/
echo %ID | sqlite3 x.db .tables
echo %ID >&2 >>file-%JOB"""

WARNED = (
    ("ls | xargs -I{} sh -c 'echo {}'", "{} stands in the command string of `sh -c`"),
    ("ls | xargs --replace=N ssh host N", "N stands in an argument of `ssh`"),
    ("xargs bash -c", "what xargs reads stands in the command string"),
    ("find . -exec sh -c 'echo {}' \\;", "{} stands in"),
    ("sh ./%ID", "name of what `sh` runs"),
    ("sh -- %ID", "name of what `sh` runs"),
    (". ./%ID", "name of what `.` runs"),
)

RUN = "touch PWNED"
HOSTILE = (
    ("$(touch PWNED);`touch PWNED`;'\"touch PWNED\"';touch PWNED\ntouch PWNED\n#", "x"),
    ("'; touch PWNED; '", '"; touch PWNED; "'),
    ("-v", "a[$(touch PWNED)]"),
    ("-va[$(touch PWNED)]", "a[$(touch PWNED)]=1"),
    ("a[$(touch PWNED)]", "x[`touch PWNED`]"),
    ('";system("touch PWNED");"', "X:=$(shell touch PWNED)"),
    ("-c", RUN),
    ("x/;e touch PWNED\n#", "!touch PWNED"),
)


class RiskyCommands(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in ("wrap", "setpriv", "docker", "git", "psql", "curl", "scp", "rsync", "make"):
            self.stand_in(name)

    def stand_in(self, name: str) -> None:
        """Put a program in the path that runs its arguments from the first one that is a shell, in all cases."""
        program = self.folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        loop = 'while [ $# != 0 ] && [ "$1" != sh ]; do shift; done'
        program.write_text(f'#!/bin/sh\n{loop}\n[ $# = 0 ] || exec "$@"\n')
        program.chmod(0o755)

    def runs_value(self, shell: str, text: str, values: tuple[str, str]) -> bool:
        """Run a text with these values of %ID and %URI; return whether one of them was run."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            for name in ("file", "prog", "script.py"):
                Path(work, name).write_text("")
            environment = {
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                **dict.fromkeys(PLACEHOLDERS.values(), "7"),
                **dict(zip(("RBIT_ID", "RBIT_URI"), values, strict=True)),
            }
            subprocess.run(
                [shell, "-c", text], env=environment, cwd=work, capture_output=True, timeout=60, check=False,
                input=b"touch PWNED\n",
            )  # fmt: skip
            return any(found.name == "PWNED" for found in Path(work).rglob("*"))

    def test_value_that_is_parsed_once_more_is_refused(self) -> None:
        for command in REFUSED.splitlines():
            with self.subTest(command):
                mistakes = parse(command.replace("@", "\n")).mistakes
                self.assertTrue(mistakes)
                self.assertTrue(all(mistake.startswith(("%ID ", "%URI ")) for mistake in mistakes), mistakes)

    def test_value_that_stays_a_value_is_accepted_and_never_run(self) -> None:
        for command in ACCEPTED.splitlines():
            template = parse(command)
            self.assertEqual(template.mistakes + template.warnings, (), command)
            for shell in SHELLS:
                for values in HOSTILE:
                    with self.subTest(command, shell=shell, values=values):
                        self.assertFalse(self.runs_value(shell, template.text, values), template.text)

    def test_hostile_values_would_be_seen(self) -> None:
        for text, values in (
            ('eval "echo $RBIT_ID"', HOSTILE[0]),
            ("wrap x sh -c \"echo '$RBIT_ID'\"", HOSTILE[1]),
            ('wrap sh "$RBIT_ID" "$RBIT_URI"', HOSTILE[6]),
            ('awk "BEGIN { print \\"$RBIT_ID\\" }"', HOSTILE[5]),
            ("sh", HOSTILE[0]),
        ):
            self.assertTrue(self.runs_value("/bin/sh", text, values), text)

    @unittest.skipUnless(shutil.which("bash"), "there is no bash")
    def test_what_is_refused_for_bash_would_run_there(self) -> None:
        for text, values in (
            ('printf "$RBIT_ID" x', HOSTILE[3]),
            ('[ "$RBIT_ID" "$RBIT_URI" ]', HOSTILE[2]),
            ('read "$RBIT_ID"', HOSTILE[4]),
            ('declare -i n; n="$RBIT_ID"', HOSTILE[4]),
            ('OPTIND="$RBIT_ID"', HOSTILE[4]),
            ('a[0]=1; unset "$RBIT_ID"', HOSTILE[4]),
        ):
            with self.subTest(text):
                self.assertTrue(self.runs_value("bash", text, values))

    def test_text_that_another_program_puts_into_code_is_warned_of(self) -> None:
        for command, words in WARNED:
            with self.subTest(command):
                template = parse(command)
                self.assertEqual(template.mistakes, ())
                self.assertEqual([words in warning for warning in template.warnings], [True], template.warnings)


if __name__ == "__main__":
    unittest.main()
