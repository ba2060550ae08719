"""What programs written with the Python client do: `flows.py <flow>...`.

Each flow prints one line per thing that went as it should; the first that did not ends the program.
"""

import base64
import sys
import threading
import time
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException


def check(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")
    print("ok:", what, flush=True)


def eventually(what, holds):
    end = time.time() + 30
    while time.time() < end:
        if holds():
            return check(True, what)
        time.sleep(0.1)
    check(False, what)


def refused(status, call):
    try:
        call()
    except ApiException as error:
        return error.status == status
    return False


def short(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def configmaps():
    api = client.CoreV1Api()
    name = short("cm")
    # Without apiVersion and kind, as the client's own tests do it.
    made = api.create_namespaced_config_map(
        "default", {"metadata": {"name": name}, "data": {"a": "b"}}
    )
    check(made.data == {"a": "b"} and made.metadata.uid, "a config map is created of a plain dict")
    read = api.read_namespaced_config_map(name, "default")
    check(read.metadata.uid == made.metadata.uid, "it is read")
    patched = api.patch_namespaced_config_map(name, "default", {"data": {"c": "d"}})
    check(patched.data == {"a": "b", "c": "d"}, "a dict is a strategic merge patch")
    patched = api.patch_namespaced_config_map(
        name, "default", [{"op": "remove", "path": "/data/c"}]
    )
    check(patched.data == {"a": "b"}, "a list is a JSON patch")
    read = api.read_namespaced_config_map(name, "default")
    read.data["a"] = "z"
    replaced = api.replace_namespaced_config_map(name, "default", read)
    check(replaced.data == {"a": "z"}, "it is replaced")
    check(
        refused(409, lambda: api.replace_namespaced_config_map(name, "default", read)),
        "an old version conflicts",
    )
    listed = api.list_namespaced_config_map("default", label_selector="none=none")
    check(listed.items == [], "a selector selects")
    check(any(m.metadata.name == name for m in api.list_config_map_for_all_namespaces().items), "all")
    gone = api.delete_namespaced_config_map(name, "default", body={})
    # The client gives a Status as it came.
    check(gone["status"] == "Success", "it is deleted")
    check(refused(404, lambda: api.read_namespaced_config_map(name, "default")), "it is gone")
    secret = api.create_namespaced_secret(
        "default", client.V1Secret(metadata={"name": short("s")}, string_data={"k": "v"})
    )
    check(base64.b64decode(secret.data["k"]) == b"v", "stringData becomes data")


def services():
    api = client.CoreV1Api()
    name = short("svc")
    made = api.create_namespaced_service(
        "default",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": {"x": name}},
            "spec": {"ports": [{"port": 80, "name": "p", "protocol": "TCP", "targetPort": 80}]},
        },
    )
    check(made.spec.cluster_ip, "a service gets an address")
    made.spec.ports[0].name = "q"
    made.spec.ports[0].port = 8080
    patched = api.patch_namespaced_service(name, "default", made)
    check(len(patched.spec.ports) == 2, "ports merge by their number, as upstream has it")
    check(api.delete_namespaced_service(name, "default", body={}), "it is deleted")
    endpoints = api.create_namespaced_endpoints(
        "default",
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": name},
            "subsets": [{"addresses": [{"ip": "192.168.33.11"}], "ports": [{"port": 80}]}],
        },
    )
    check(endpoints.subsets[0].addresses[0].ip == "192.168.33.11", "endpoints are kept")
    rc = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name, "labels": {"name": "frontend"}},
        "spec": {
            "replicas": 2,
            "selector": {"name": "frontend"},
            "template": {
                "metadata": {"labels": {"name": "frontend"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx"}]},
            },
        },
    }
    made = api.create_namespaced_replication_controller("default", rc)
    check(made.spec.replicas == 2, "a replication controller is made")
    api.delete_namespaced_replication_controller(name, "default", propagation_policy="Background")
    check(api.list_node().items is not None, "nodes are listed")


def deployment(name, replicas=2):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]},
            },
        },
    }


def apps():
    api = client.AppsV1Api()
    name = short("deploy")
    api.create_namespaced_deployment("default", deployment(name))
    eventually(
        "the deployment is ready",
        lambda: api.read_namespaced_deployment(name, "default").status.ready_replicas == 2,
    )
    scale = api.read_namespaced_deployment_scale(name, "default")
    check(scale.spec.replicas == 2, "its scale is read")
    api.patch_namespaced_deployment_scale(name, "default", {"spec": {"replicas": 1}})
    eventually(
        "it shrinks",
        lambda: api.read_namespaced_deployment(name, "default").status.replicas == 1,
    )
    api.delete_namespaced_deployment(name, "default", propagation_policy="Foreground")
    eventually(
        "it goes with its pods",
        lambda: client.CoreV1Api()
        .list_namespaced_pod("default", label_selector=f"app={name}")
        .items
        == []
        and refused(404, lambda: api.read_namespaced_deployment(name, "default")),
    )
    daemon_set = deployment(short("ds"))
    daemon_set["kind"] = "DaemonSet"
    del daemon_set["spec"]["replicas"]
    made = api.create_namespaced_daemon_set("default", daemon_set)
    check(made.spec.update_strategy.type == "RollingUpdate", "a daemon set is made")
    made.spec.template.spec.containers[0].image = "web:2"
    made.metadata.resource_version = None
    made = api.patch_namespaced_daemon_set(made.metadata.name, "default", made)
    check(made.spec.template.spec.containers[0].image == "web:2", "and patched")


def batch():
    api = client.BatchV1Api()
    name = short("job")
    api.create_namespaced_job(
        "default",
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"image": "busybox", "name": name, "command": ["true"]}],
                        "restartPolicy": "Never",
                    }
                }
            },
        },
    )
    check(api.read_namespaced_job(name, "default").metadata.name == name, "a job is made")
    gone = api.delete_namespaced_job(name, "default", propagation_policy="Background")
    check(gone is not None, "and deleted")
    cron = api.create_namespaced_cron_job(
        "default",
        {
            "metadata": {"name": short("cron")},
            "spec": {
                "schedule": "0 3 * * *",
                "jobTemplate": {
                    "spec": {
                        "template": {
                            "spec": {
                                "containers": [{"image": "a", "name": "c"}],
                                "restartPolicy": "OnFailure",
                            }
                        }
                    }
                },
            },
        },
    )
    check(cron.spec.concurrency_policy == "Allow", "a cron job has its defaults")


def widgets():
    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.py.example.org"},
            "spec": {
                "group": "py.example.org",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}},
                        "schema": {
                            "openAPIV3Schema": {
                                "type": "object",
                                "properties": {
                                    "spec": {
                                        "type": "object",
                                        "properties": {"size": {"type": "integer", "minimum": 1}},
                                    },
                                    "status": {
                                        "type": "object",
                                        "x-kubernetes-preserve-unknown-fields": True,
                                    },
                                },
                            }
                        },
                    }
                ],
            },
        }
    )

    def established():
        it = extensions.read_custom_resource_definition("widgets.py.example.org")
        return any(
            c.type == "Established" and c.status == "True" for c in it.status.conditions or []
        )

    eventually("the definition is established", established)


def crds():
    widgets()
    api = client.CustomObjectsApi()
    where = ("py.example.org", "v1", "default", "widgets")
    widget = {
        "apiVersion": "py.example.org/v1",
        "kind": "Widget",
        "metadata": {"name": "one"},
        "spec": {"size": 3},
    }
    made = api.create_namespaced_custom_object(*where, widget)
    check(made["metadata"]["generation"] == 1, "a widget is made")
    patched = api.patch_namespaced_custom_object(*where, "one", {"spec": {"size": 4}})
    check(patched["spec"]["size"] == 4, "and patched")
    check(
        refused(
            422, lambda: api.patch_namespaced_custom_object(*where, "one", {"spec": {"size": 0}})
        ),
        "a size of 0 is refused",
    )
    api.patch_namespaced_custom_object_status(*where, "one", {"status": {"said": "fine"}})
    check(
        api.get_namespaced_custom_object(*where, "one")["status"] == {"said": "fine"}, "its status"
    )
    check(len(api.list_namespaced_custom_object(*where)["items"]) == 1, "it is listed")
    api.delete_namespaced_custom_object(*where, "one")
    client.ApiextensionsV1Api().delete_custom_resource_definition("widgets.py.example.org")
    eventually(
        "the definition takes its resource along",
        lambda: refused(404, lambda: api.list_namespaced_custom_object(*where)),
    )


def watches():
    api = client.CoreV1Api()
    seen, prefix = [], short("w")
    version = api.list_namespaced_config_map("default").metadata.resource_version

    def look():
        stream = watch.Watch().stream(
            api.list_namespaced_config_map,
            "default",
            resource_version=version,
            timeout_seconds=30,
            allow_watch_bookmarks=True,
        )
        for event in stream:
            if event["object"].metadata.name.startswith(prefix):
                seen.append(event["type"])
            if event["type"] == "DELETED":
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    api.create_namespaced_config_map("default", {"metadata": {"name": prefix + "-one"}})
    api.patch_namespaced_config_map(prefix + "-one", "default", {"data": {"a": "b"}})
    api.delete_namespaced_config_map(prefix + "-one", "default")
    thread.join(30)
    check(seen == ["ADDED", "MODIFIED", "DELETED"], "a watch tells a life in order")
    begin = time.time()
    for _ in watch.Watch().stream(api.list_namespace, timeout_seconds=1):
        pass
    check(0.8 < time.time() - begin < 10, "a watch ends when its time is over")


def dynamics():
    dynamic_client = dynamic.DynamicClient(client.ApiClient())
    maps = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    name = short("dyn")
    made = maps.create(
        body={"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1"}},
        namespace="default",
    )
    check(made.data.a == "1", "a config map is made dynamically")
    patched = maps.patch(
        body={"metadata": {"name": name}, "data": {"b": "2"}},
        namespace="default",
        content_type="application/merge-patch+json",
    )
    check(patched.data.to_dict() == {"a": "1", "b": "2"}, "and patched")
    applied = maps.server_side_apply(
        namespace="default",
        field_manager="python",
        body={"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"c": "3"}},
    )
    check(applied.data.c == "3", "and applied")
    check(
        any(m.manager == "python" and m.operation == "Apply" for m in applied.metadata.managedFields),
        "with its manager",
    )
    check(maps.get(name=name, namespace="default").data.a == "1", "and read")
    maps.delete(name=name, namespace="default", body={})
    widgets()
    again = dynamic.DynamicClient(client.ApiClient())
    resource = again.resources.get(api_version="py.example.org/v1", kind="Widget")
    resource.create(
        body={
            "kind": "Widget",
            "apiVersion": "py.example.org/v1",
            "metadata": {"name": "two"},
            "spec": {"size": 1},
        },
        namespace="default",
    )
    check(len(resource.get(namespace="default").items) == 1, "custom resources are found, too")
    client.ApiextensionsV1Api().delete_custom_resource_definition("widgets.py.example.org")


def apply():
    name = short("applied")
    api_client = client.ApiClient()
    made = utils.create_from_dict(api_client, deployment(name, 1))
    check(made[0].metadata.name == name, "create_from_dict creates")
    objects = utils.create_from_yaml(api_client, "manifest.yaml")
    # One entry for a list of two.
    check(len(objects) == 2, "create_from_yaml creates what a file has")
    try:
        utils.create_from_yaml(api_client, "manifest.yaml")
        check(False, "a second time is refused")
    except utils.FailToCreateError as error:
        check("AlreadyExists" in str(error), "a second time is refused")
    utils.create_from_yaml(api_client, "manifest.yaml", apply=True)
    check(True, "create_from_yaml applies")


def leader():
    from kubernetes.leaderelection import electionconfig, leaderelection
    from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

    leads = threading.Event()
    lock = ConfigMapLock("leader", "default", "python-one")
    configuration = electionconfig.Config(
        lock,
        lease_duration=4,
        renew_deadline=3,
        retry_period=1,
        onstarted_leading=leads.set,
        onstopped_leading=None,
    )
    election = leaderelection.LeaderElection(configuration)
    threading.Thread(target=election.run, daemon=True).start()
    check(leads.wait(30), "one leads")
    said = client.CoreV1Api().read_namespaced_config_map("leader", "default")
    check("python-one" in str(said.metadata.annotations), "and says so in its config map")
    leases = client.CoordinationV1Api()
    made = leases.create_namespaced_lease(
        "default",
        {"metadata": {"name": "lease"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 5}},
    )
    made.spec.holder_identity = "y"
    check(leases.replace_namespaced_lease("lease", "default", made).spec.holder_identity == "y", "leases")


def pods():
    api = client.CoreV1Api()
    name = short("pod")
    api.create_namespaced_pod(
        "default",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"image": "busybox", "name": "sleep"}]},
        },
    )
    eventually(
        "the pod runs", lambda: api.read_namespaced_pod(name, "default").status.phase == "Running"
    )
    check("three" in api.read_namespaced_pod_log(name, "default"), "its log is read")
    from kubernetes.stream import stream

    said = stream(
        api.connect_get_namespaced_pod_exec,
        name,
        "default",
        command=["warn", "careful"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    check(said == "careful\n", "a command is run in it")
    opened = stream(
        api.connect_get_namespaced_pod_exec,
        name,
        "default",
        command=["exit", "7"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
        _preload_content=False,
    )
    opened.run_forever(timeout=10)
    check(opened.returncode == 7, "its exit code is known")
    api.delete_namespaced_pod(name, "default", grace_period_seconds=0)


FLOWS = {
    flow.__name__: flow
    for flow in (configmaps, services, apps, batch, crds, watches, dynamics, apply, leader, pods)
}

if __name__ == "__main__":
    config.load_kube_config()
    for flow in sys.argv[1:]:
        FLOWS[flow]()
        print("done", flow)
