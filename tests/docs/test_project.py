"""The project of docs/project.md works as the page says."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
from support.documents import DOCS, ROOT, of_kind
from support.process import HubProcess
from support.sse import post

FILES = [*of_kind(DOCS["project"], "python", "file="), *of_kind(DOCS["project"], "text", "file=")]


def write(folder: Path) -> None:
    """Write the files of the page."""
    for block in FILES:
        path = folder / block.value("file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HUBBUB_")}
    environ |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=100
    )


async def test_the_agent_answers_with_the_words_of_dotenv(tmp_path: Path) -> None:
    """The agent imports the module beside it, and the hub reads the keys of .env."""
    write(tmp_path)
    process = HubProcess(tmp_path)
    try:
        await process.start()
        async with aiohttp.ClientSession(f"{process.url}/api/v1/") as http:
            _, answer = await post(http, "sessions/s1/chat?wait=true", {"agentId": "greeter", "message": "Ann"})
    finally:
        await process.kill()
    assert answer["content"] == "Bonjour, Ann!", process.log


async def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """They run without a hub, in the project's folder."""
    write(tmp_path)
    result = await asyncio.to_thread(run, tmp_path, "-m", "pytest", "-p", "no:cacheprovider", "tests")
    assert result.returncode == 0 and "1 passed" in result.stdout, result.stdout


async def test_the_commands_of_the_page_name_files_of_the_page(tmp_path: Path) -> None:
    """pip reads a file that the page has written before."""
    write(tmp_path)
    lines = [line for block in of_kind(DOCS["project"], "sh", "project") for line in block.lines]
    assert all(line.startswith((".venv/bin/p", "python3 -m venv")) for line in lines)
    assert (
        ".venv/bin/pip install -r agents/requirements.txt" in lines and (tmp_path / "agents/requirements.txt").exists()
    )


async def test_hubbub_agents_names_each_missing_requirement(tmp_path: Path) -> None:
    """The output has the command that installs them. Options of pip and markers of other systems do not count."""
    write(tmp_path)
    result = await asyncio.to_thread(run, tmp_path, "-m", "hub", "agents")
    assert (result.returncode, result.stderr) == (0, "")
    (tmp_path / "agents" / "requirements.txt").write_text(
        "no-such-package==1.0  # why\npackaging<1\npackaging\n-r other.txt\nno-more; sys_platform == 'win31'\n"
    )
    result = await asyncio.to_thread(run, tmp_path, "-m", "hub", "agents")
    file = "agents/requirements.txt"
    expected = f"{file}: missing: no-such-package==1.0, packaging<1; install them with: pip install -r {file}\n"
    assert (result.returncode, result.stderr) == (0, expected)


async def test_continued_lines_and_comments_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    """A file with the hashes of `pip-compile` needs no run of pip; a comment that ends with a backslash ends there."""
    write(tmp_path)
    script = str(ROOT / "scripts" / "install_requirements.py")
    file = tmp_path / "agents" / "requirements.txt"
    file.write_text("packaging \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n    # via x\naiohttp\t# why\n")
    result = await asyncio.to_thread(run, tmp_path, script)
    assert (result.returncode, result.stdout) == (0, "")
    file.write_text("# in C:\\\nno-such-package==1.0 \\\n    --hash=sha256:1\n")
    result = await asyncio.to_thread(run, tmp_path, "-m", "hub", "agents")
    assert "missing: no-such-package==1.0; install" in result.stderr


async def test_make_run_installs_what_is_missing(tmp_path: Path) -> None:
    """It installs nothing if nothing is missing, and names a package that it cannot install. The hub still starts."""
    write(tmp_path)
    script = str(ROOT / "scripts" / "install_requirements.py")
    result = await asyncio.to_thread(run, tmp_path, script)
    assert (result.returncode, result.stdout) == (0, "")
    package = tmp_path / "acme"
    package.mkdir()
    (tmp_path / "agents" / "requirements.txt").write_text(f"--no-index\n--find-links {package}\nhubbub-no-such\n")
    result = await asyncio.to_thread(run, tmp_path, script)
    assert result.returncode == 0 and "Installing the requirements in agents/requirements.txt" in result.stdout
    assert "hubbub-no-such" in result.stderr and "The hub will run without" in result.stderr
    recipe = (ROOT / "Makefile").read_text().partition("\nrun:")[2].partition("\n\n")[0]
    assert recipe.index("install_requirements.py") < recipe.index("hubbub serve")
