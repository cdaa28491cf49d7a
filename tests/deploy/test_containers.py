"""The files for containers in deploy/ fit the hub: its commands, flags, settings, routes, folders and limits."""

import asyncio
import json
import re
import shlex
import socket
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import pytest
import yaml
from support.documents import DOCS, ROOT
from support.process import HubProcess, make_environment

from hub.access.doors import check_bind
from hub.cli.main import cli
from hub.limits import Limits
from hub.setting_sources import ENVIRONMENT_PREFIX, load_settings
from hub.settings import Settings
from hub.web.app import ROUTES
from hub.web.ending import EXIT_SECONDS
from hub.web.metrics_server import HANDLERS

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CLAIM, DEPLOYMENT, SERVICE, INGRESS = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@attrs.frozen
class Image:
    """The instructions of the last stage of the Dockerfile, as pairs of a word and the rest of the line."""

    instructions: list[tuple[str, str]]

    def values(self, word: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == word]

    @property
    def environ(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.values("ENV") for pair in shlex.split(line))

    @property
    def health_command(self) -> list[str]:
        (line,) = self.values("HEALTHCHECK")
        words: list[str] = json.loads(line.partition("CMD ")[2])
        return words


def read_image() -> Image:
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    pairs = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]
    last = max(number for number, (word, _) in enumerate(pairs) if word == "FROM")
    return Image(pairs[last:])


IMAGE = read_image()


def load(arguments: list[str], environ: dict[str, str], folder: Path) -> Settings:
    """Return the settings of a container with these arguments for its image, and these variables."""
    assert all(name.startswith(ENVIRONMENT_PREFIX) for name in environ)
    name, *flags = arguments
    command = cli.commands[name]
    with command.make_context(name, flags) as context:
        flag_values = {key: value for key, value in context.params.items() if key in attrs.fields_dict(Settings)}
    return load_settings(flag_values, IMAGE.environ | environ, folder)


def kubernetes_environ() -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in CONTAINER["env"]}


CONTAINERS = {
    "docker": (json.loads(IMAGE.values("CMD")[0]), {}),
    "compose": (json.loads(IMAGE.values("CMD")[0]), COMPOSE["services"]["hub"]["environment"]),
    "kubernetes": (CONTAINER["args"], kubernetes_environ()),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_command_and_the_variables_are_those_of_the_hub(name: str, tmp_path: Path) -> None:
    """The hub accepts them. It listens on all addresses of its container, and requires sign-in."""
    settings = load(*CONTAINERS[name], tmp_path)
    check_bind(settings)
    assert settings.host == "0.0.0.0" and settings.is_sign_in_on and settings.port == Settings().port
    assert (settings.public_url is not None) == bool(settings.trusted_proxies) == (name != "docker")
    assert json.loads(IMAGE.values("ENTRYPOINT")[0]) == ["hubbub"]


def test_the_ports_are_those_of_the_hub(tmp_path: Path) -> None:
    """Also those of the proxies."""
    port = Settings().port
    assert IMAGE.values("EXPOSE") == [str(port)]
    assert COMPOSE["services"]["caddy"]["command"].endswith(f" --to hub:{port}")
    ports = {entry["name"]: entry["containerPort"] for entry in CONTAINER["ports"]}
    assert ports == {"http": port, "metrics": load(*CONTAINERS["kubernetes"], tmp_path).metrics_port}
    assert [entry["targetPort"] for entry in SERVICE["spec"]["ports"]] == ["http"]
    (backend,) = [path["backend"]["service"] for path in INGRESS["spec"]["rules"][0]["http"]["paths"]]
    assert backend == {"name": SERVICE["metadata"]["name"], "port": {"name": SERVICE["spec"]["ports"][0]["name"]}}
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


def is_writable(path: Path, volumes: dict[str, bool]) -> bool:
    """Return whether a path is in a volume, and the innermost one can be written. *volumes* maps paths to that."""
    parents = [volume for volume in volumes if PurePosixPath(path).is_relative_to(volume)]
    return bool(parents) and volumes[max(parents, key=len)]


def read_compose_volumes() -> dict[str, bool]:
    hub = COMPOSE["services"]["hub"]
    parts = [volume.split(":") for volume in hub["volumes"]]
    return {part[1]: part[2:] != ["ro"] for part in parts} | {path: True for path in hub["tmpfs"]}


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_the_hub_writes_is_in_a_volume(name: str, tmp_path: Path) -> None:
    """The rest of the file system is read-only, also the agents."""
    volumes = {
        "docker": {IMAGE.values("VOLUME")[0]: True, "/tmp": True},
        "compose": read_compose_volumes(),
        "kubernetes": {mount["mountPath"]: not mount.get("readOnly") for mount in CONTAINER["volumeMounts"]},
    }[name]
    settings = load(*CONTAINERS[name], tmp_path)
    for folder in (settings.data, settings.cache_folder, Path("/tmp")):
        assert is_writable(folder, volumes), folder
    agents = IMAGE.values("WORKDIR")[0] / settings.agents
    assert not is_writable(agents, volumes) and (name == "docker" or str(agents) in volumes)
    mounts, sources = {mount["name"] for mount in CONTAINER["volumeMounts"]}, {one["name"] for one in POD["volumes"]}
    assert mounts == sources and POD["volumes"][0]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert {volume.split(":")[0] for volume in COMPOSE["services"]["hub"]["volumes"]} == {"data", "../agents"}


def test_the_hub_has_no_rights() -> None:
    """It is not root, cannot become root, and cannot write to its own files."""
    (user,) = IMAGE.values("USER")
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", user)  # Kubernetes checks only numbers
    assert f"--uid {user.partition(':')[0]} " in " ".join(IMAGE.values("RUN"))
    hub = COMPOSE["services"]["hub"]
    assert hub["read_only"] and hub["cap_drop"] == ["ALL"] and hub["security_opt"] == ["no-new-privileges:true"]
    pod = POD["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == user and pod["fsGroup"] == pod["runAsGroup"]
    assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False


def test_the_hub_has_the_time_that_its_stop_takes() -> None:
    seconds = Limits().drain_seconds + EXIT_SECONDS
    assert POD["terminationGracePeriodSeconds"] > seconds
    assert int(COMPOSE["services"]["hub"]["stop_grace_period"].removesuffix("s")) > seconds


def test_only_one_process_has_the_log() -> None:
    """A rolling update would start the next hub before the last one has released its log."""
    assert DEPLOYMENT["spec"]["replicas"] == 1 and DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}


def test_the_hub_of_compose_trusts_only_the_network_of_its_proxy(tmp_path: Path) -> None:
    """The host of the proxy is that of `public_url`."""
    settings = load(*CONTAINERS["compose"], tmp_path)
    networks = [entry["subnet"] for entry in COMPOSE["networks"]["proxy"]["ipam"]["config"]]
    assert list(settings.trusted_proxies) == networks
    assert all(service["networks"] == ["proxy"] for service in COMPOSE["services"].values())
    assert "ports" not in COMPOSE["services"]["hub"]
    host = COMPOSE["services"]["caddy"]["command"].split()[3]
    assert settings.public_url == f"https://{host}"
    assert [rule["host"] for rule in INGRESS["spec"]["rules"]] == [host] == INGRESS["spec"]["tls"][0]["hosts"]


def test_the_image_has_the_files_and_extras_of_the_repository() -> None:
    """Each file that the build copies exists, and each extra that it installs."""
    text = (DEPLOY / "Dockerfile").read_text()
    names = [name for line in re.findall("^COPY (?!--)(.*)", text, re.MULTILINE) for name in line.split()[:-1]]
    assert {"hub", "hubbub_agents", "setup.cfg"} <= {*names} and all((ROOT / name).exists() for name in names)
    (extras,) = re.findall(r"\*\.whl\)\[([a-z,]+)\]", text)
    assert all(f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text() for extra in extras.split(","))


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_the_page_names_the_file(name: str) -> None:
    assert f"`deploy/{name}`" in DOCS["operations"].read_text(encoding="utf-8")


def test_the_commands_in_the_files_exist() -> None:
    for name in ("Dockerfile", "compose.yaml", "kubernetes.yaml"):
        commands = re.findall(r"(?:-- |hub )hubbub (\w+)|RUN hubbub (\w+)", (DEPLOY / name).read_text())
        assert commands and all(first + second in cli.commands for first, second in commands)


# --- the probes -------------------------------------------------------------------------------------------------------


async def send_probe(port: int, path: str) -> int:
    """Send the request of a kubelet, which names the address of the pod, and return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 10.1.2.3:{port}\r\nUser-Agent: kube-probe/1.31\r\n".encode())
    writer.write(b"Accept: */*\r\nConnection: close\r\n\r\n")
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


async def run_health_command(port: int) -> int:
    """Run the health check of the image against a port; return its exit code."""
    _, *arguments = (word.replace(f":{Settings().port}/", f":{port}/") for word in IMAGE.health_command)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments), env=make_environment(), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


def write_config_map(folder: Path) -> None:
    """Write agents as Kubernetes mounts a ConfigMap: as links to files in a folder that a link names."""
    (folder / "..2026_11_30").mkdir(parents=True)
    (folder / "..2026_11_30" / "parrot.py").write_text("def parrot(message): return message")
    (folder / "..data").symlink_to("..2026_11_30")
    (folder / "parrot.py").symlink_to(Path("..data") / "parrot.py")


async def test_the_probes_get_the_state_of_a_hub(tmp_path: Path) -> None:
    """They are routes of the hub. Sign-in and the check of Host do not refuse them, and a stopped hub is not healthy.

    The hub runs with the agents of a ConfigMap.
    """
    probes = {CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert probes == {"/health", "/ready"} <= HANDLERS.keys() and probes <= {route.path for route in ROUTES}
    assert all(CONTAINER[f"{kind}Probe"]["httpGet"]["port"] == "metrics" for kind in ("liveness", "readiness"))
    write_config_map(tmp_path / "agents")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        metrics_port = sock.getsockname()[1]
    process = HubProcess(tmp_path)
    variables: dict[str, Any] = {
        key.removeprefix(ENVIRONMENT_PREFIX).lower(): value for key, value in kubernetes_environ().items()
    }
    try:
        await process.start(**variables, sign_in=True, metrics_host="0.0.0.0", metrics_port=metrics_port)
        assert "agent parrot" in process.log
        assert [await send_probe(metrics_port, path) for path in sorted(probes)] == [200, 200]
        assert await run_health_command(process.port) == 0
    finally:
        await process.kill()
    assert await run_health_command(process.port) != 0
