"""The manifests: held against Kubernetes' own schemas, and against what fedstep's commands take."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from fedstep.common.cli import fedstep

FOLDER = Path(__file__).parents[3] / "deploy/kubernetes"
VERSIONS = ("1.28", kubernetes_validate.latest_version())
"""The oldest that has the label which a client's share comes from, and the newest known."""

Resource = dict[str, Any]


def documents(text: str) -> list[Resource]:
    return [document for document in yaml.safe_load_all(text) if document]


KUSTOMIZATION = documents((FOLDER / "kustomization.yaml").read_text())[0]
# As kustomize reads them, but for what it changes: the namespace, a label, and where images are.
RESOURCES = [found for name in KUSTOMIZATION["resources"] for found in documents((FOLDER / name).read_text())]
PODS = [r for r in RESOURCES if r["kind"] in ("Deployment", "StatefulSet")]


def name_of(resource: Resource) -> str:
    return f"{resource['kind']}/{resource['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", RESOURCES, ids=name_of)
def test_a_resource_keeps_to_the_schema(resource: Resource, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_schema_check_notices_a_misspelt_key() -> None:
    wrong = {**PODS[0], "spec": {**PODS[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_file_belongs_to_the_kustomization() -> None:
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(KUSTOMIZATION["resources"])
    used = {pod["spec"]["template"]["spec"]["containers"][0]["image"] for pod in PODS}
    assert used == {image["name"] for image in KUSTOMIZATION["images"]}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl, which brings kustomize, is not on this machine")
def test_kustomize_builds_the_same_resources() -> None:
    built = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    made = documents(built.stdout)
    assert sorted(map(name_of, made)) == sorted(map(name_of, RESOURCES))
    for resource in made:
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "fedstep"
    images = [r["spec"]["template"]["spec"]["containers"][0]["image"] for r in made if r["kind"] == "Deployment"]
    assert images == ["registry.example/fedstep-coordinator:0.1.0"]


@pytest.mark.parametrize("resource", PODS, ids=name_of)
def test_a_pod_is_confined(resource: Resource) -> None:
    spec = resource["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("resource", PODS, ids=name_of)
def test_what_a_pod_names_is_there(resource: Resource) -> None:
    spec = resource["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    services = {r["metadata"]["name"]: r for r in RESOURCES if r["kind"] == "Service"}
    service = services[resource["metadata"]["name"]]
    assert service["spec"]["selector"] == labels
    pod = spec["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    claims = {r["metadata"]["name"] for r in RESOURCES if r["kind"] == "PersistentVolumeClaim"}
    assert {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v} <= claims
    for container in pod["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        paths = [word.partition("=")[2] for word in container.get("args", ()) if "=/" in word]
        paths += [entry["value"] for entry in container.get("env", ()) if entry.get("value", "").startswith("/")]
        assert all(any(f"{path}/".startswith(f"{folder}/") for folder in folders) for path in paths), paths


def test_a_clients_pod_sees_no_key_but_its_own() -> None:
    client = next(r for r in RESOURCES if name_of(r) == "StatefulSet/client")["spec"]["template"]["spec"]
    keys = [mount for mount in client["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    shown = {mount["mountPath"]: mount.get("subPath") or mount.get("subPathExpr") for mount in keys}
    assert shown == {
        "/secrets/client/ca.crt": "ca.crt",
        "/secrets/client/client.crt": "client-$(SHARE).crt",
        "/secrets/client/client.key": "client-$(SHARE).key",
    }


def test_commands_are_ones_that_fedstep_takes() -> None:
    checked = []
    for resource in PODS:
        container = resource["spec"]["template"]["spec"]["containers"][0]
        if "args" in container:
            name, *options = [word.replace("$(SHARE)", "3") for word in container["args"]]
            command = fedstep.get_command(click.Context(fedstep), name)
            assert command is not None
            command.make_context(name, options)
            checked.append(name)
    assert checked == ["coordinator", "client"]


def test_there_are_as_many_shares_as_clients() -> None:
    clients = next(r for r in RESOURCES if name_of(r) == "StatefulSet/client")["spec"]
    assert clients["ordinals"] == {"start": 1}
    assert f"--partition=$(SHARE)/{clients['replicas']}" in clients["template"]["spec"]["containers"][0]["args"]
