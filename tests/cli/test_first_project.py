"""A new project, with `hubbub init`."""

from pathlib import Path

from support.documents import ROOT
from support.process import HubProcess, run_hubbub

from hub.cli.first_project import FIRST_AGENTS_FOLDER


async def test_the_first_agents_work_at_once(tmp_path: Path) -> None:
    """The error of a hub in an empty folder names the command that makes them. Then the hub starts."""
    refusal = await run_hubbub(tmp_path, "serve", "--port", "0")
    assert refusal.code == 2 and "make one with hubbub init" in refusal.err
    result = await run_hubbub(tmp_path, "init")
    assert result.code == 0 and "hubbub serve" in result.out and "agents/main.toml: written" in result.out, result
    process = HubProcess(tmp_path)
    try:
        await process.start()
        answer = await run_hubbub(tmp_path, "agents")
        assert answer.code == 0 and "\necho " in answer.out and "\nmain " in answer.out
    finally:
        await process.kill()


async def test_a_file_of_the_author_stays(tmp_path: Path) -> None:
    """A second `hubbub init` changes nothing. `--agents` names another folder."""
    (tmp_path / "bots").mkdir()
    (tmp_path / "bots" / "echo.py").write_text("mine")
    result = await run_hubbub(tmp_path, "init", "--agents", "bots")
    assert result.code == 0 and "bots/echo.py: exists, and stays as it is" in result.out
    assert (tmp_path / "bots" / "echo.py").read_text() == "mine" and (tmp_path / "bots" / "main.toml").exists()


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "agents").touch()
    result = await run_hubbub(tmp_path, "init")
    assert (result.code, result.out, result.err) == (2, "", "hubbub: agents: File exists\n")


def test_the_first_agents_are_those_of_the_repository() -> None:
    """The wheel has no agents/, so these files are there a second time."""
    files = sorted(FIRST_AGENTS_FOLDER.glob("*.*"))
    assert [file.name for file in files] == ["echo.py", "main.toml"]
    for file in files:
        assert file.read_bytes() == (ROOT / "agents" / file.name).read_bytes()
