# Sets rbit up in this checkout, shows it at work, tests it. Nothing here talks to a broker that it did not start.
#
#   make demo             the main job on a private RabbitMQ node; what it makes is in build/demo
#   make node             a RabbitMQ to play with, until Ctrl+C; prints the [amqp] section that leads to it
#   make test             all tests, in parts side by side; those that need RabbitMQ are skipped without it,
#                         and fail with CI=true
#   make faults           a client, worker or broker killed every few seconds, and a ledger of all jobs: 20 minutes, or
#                         MINUTES=5 SEED=1 CLUSTER=--cluster; see docs/faults.rst
#   make fuzz             100,000 cases made at random of all that strangers and users write: ten minutes, or CASES=5000
#                         SEED=1
#   make bench            rbit measured beside Celery, Dramatiq and amqp-consume, which are installed for it:
#                         REPEAT=5 JOBS=5000 ONLY="push shell" RST=docs/benchmarks.rst; see docs/benchmarks.rst
#   make setup            what all of them need
#   make clean            removes what these made, the virtual environment too
#   PYTHON=python3.12     the Python to use, 3.10 or later

PYTHON ?= python3
MINUTES ?= 20
CASES ?= 100000
REPEAT ?= 5
VENV := .venv
LOG := build/setup.log
STAMP := $(VENV)/.rbit-$(subst /,_,$(PYTHON))

SHELL := /bin/sh
.SHELLFLAGS := -euc
.ONESHELL:
.SILENT:
.PHONY: demo node test faults fuzz bench peers setup broker clean

demo: setup
	$(VENV)/bin/python examples/demo.py

node: setup
	$(VENV)/bin/python examples/node.py

test: setup
	$(VENV)/bin/python -m tests

faults: setup
	$(VENV)/bin/python -m tests.faults --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(CLUSTER)

fuzz: $(STAMP)
	$(VENV)/bin/python -m tests.fuzz --cases $(CASES) $(if $(SEED),--seed $(SEED))

bench: setup peers
	$(VENV)/bin/python -m bench --repeat $(REPEAT) $(if $(JOBS),--jobs $(JOBS)) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(RST),--rst $(RST))

setup: $(STAMP) broker

# Shell functions for the recipes below. quietly: shows what a command prints only if it fails.
define FUNCTIONS
mkdir -p build
quietly() {
    if ! "$$@" >$(LOG) 2>&1 </dev/null; then
        cat $(LOG) >&2
        echo "rbit: this failed: $$*" >&2
        return 1
    fi
}
# Installs packages of the distribution, if that is possible here; says in one line what to do if it is not.
install() {
    root=
    if ! command -v apt-get >/dev/null; then
        echo "rbit: $$* is missing and there is no apt-get here; please install it" >&2
        return 1
    elif [ "$$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            root="sudo -n"
        elif [ -t 0 ] && command -v sudo >/dev/null; then
            root=sudo
        else
            echo "rbit: $$* is missing; please install it as root: apt-get install $$*" >&2
            return 1
        fi
    fi
    echo "rbit: installing $$* from the distribution's packages"
    quietly $$root apt-get update || echo "rbit: going on with the package lists that are there" >&2
    quietly $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$$@"
}
endef

$(STAMP): setup.py pyproject.toml rbit/__init__.py
	$(FUNCTIONS)
	if ! version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
	    echo "rbit: there is no $(PYTHON) that runs; please install Python 3.10 or later, or name one: make PYTHON=..." >&2
	    exit 1
	fi
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
	    echo "rbit: $(PYTHON) is Python $$version; 3.10 or later is needed: make PYTHON=..." >&2
	    exit 1
	fi
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || install python$$version-venv
	if [ "$$($(VENV)/bin/python -c 'import sys; print(sys.version)' 2>/dev/null)" != \
	     "$$($(PYTHON) -c 'import sys; print(sys.version)')" ] || ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then
	    echo "rbit: making a virtual environment in $(VENV) with Python $$version"
	    quietly $(PYTHON) -m venv --clear $(VENV)
	fi
	echo "rbit: installing the package and what its tests need into $(VENV)"
	quietly $(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[test]'
	touch $@

# Without a broker the tests still run, and skip what needs one; the demo says that it cannot.
broker:
	$(FUNCTIONS)
	if ! command -v rabbitmq-server >/dev/null && ! [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
	    if install rabbitmq-server; then
	        echo "rbit: Debian and Ubuntu also start RabbitMQ as a service; rbit's demo and tests never use that one"
	    fi
	fi

# What rbit is measured beside; nothing else needs it.
peers: $(STAMP)-bench
	$(FUNCTIONS)
	command -v amqp-consume >/dev/null || install amqp-tools

$(STAMP)-bench: $(STAMP)
	$(FUNCTIONS)
	echo "rbit: installing what it is measured beside into $(VENV)"
	quietly $(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[bench]'
	touch $@

clean:
	rm -rf build dist $(VENV) *.egg-info .mypy_cache .ruff_cache
