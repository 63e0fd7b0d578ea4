"""What is installed: the wheel's contents, and what a device needs of it."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent


PACKAGES = ("est_protocol", "est_server", "est_client")

#: Distributions that are not called as what is imported.
DISTRIBUTIONS = {
    "OpenSSL": "pyOpenSSL",
    "service_identity": "service-identity",
    "pkcs11": "python-pkcs11",
}
#: aiohttp takes and gives their objects.
PARTS_OF_AIOHTTP = {"multidict", "yarl"}
#: Known to type checkers alone, and imported for them alone.
FOR_MYPY = {"_typeshed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, built from a copy of this tree."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package build is not installed")
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    if done.returncode != 0 and "No matching distribution found" in said:
        pytest.skip("setuptools cannot be fetched from here")
    assert done.returncode == 0, said
    [path] = (source / "dist").glob("*.whl")
    assert len(list((source / "dist").glob("*.tar.gz"))) == 1
    return path


def test_the_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    shipped = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == ours
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


def test_the_wheel_says_what_it_is_and_needs(wheel: Path) -> None:
    archive = ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "est-enrollment"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    [name] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    scripts = archive.read(name).decode()
    assert "est-server = est_server.cli:main" in scripts
    assert "est-client = est_client.cli:main" in scripts


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "explanation" / "dependencies.md").read_text().lower()
    extras = project["optional-dependencies"]
    named = [*extras["server"], *extras["postgresql"], *extras["simulate"], *extras["pkcs11"]]
    for requirement in [*project["dependencies"], *named]:
        name = re.split(r"[<>=\[]", requirement)[0].lower()
        assert f"[{name}](" in page, name


def test_every_import_of_a_library_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + extras["postgresql"] + extras["simulate"]
    requirements += extras["pkcs11"]
    declared = {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}
    imported = {
        name.split(".")[0]
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported_by(node)
    }
    libraries = imported - sys.stdlib_module_names - set(PACKAGES) - PARTS_OF_AIOHTTP - FOR_MYPY
    assert {DISTRIBUTIONS.get(name, name) for name in libraries} == declared


def test_a_server_without_postgresql_needs_no_psycopg() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import est_server.server, est_server.cli\n"
        "from est_server.stores.postgresql import PostgresqlAddress\n"
        "try: PostgresqlAddress('postgresql://db/est')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "for PostgreSQL install est-enrollment[postgresql]\n"


def _imported_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_a_device_needs_nothing_of_the_server() -> None:
    code = (
        "import sys, est_client.cli, est_client.https, est_client.coaps; "
        "print(*[m for m in sys.modules if m.split('.')[0] in ('est_server', 'sqlite3')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
