#!/usr/bin/env python3
"""Makes the schema table of crates/kube from the registry packages that carry the data.

    pip download --no-deps kubernetes-validate==1.37.0 && unzip it somewhere
    go mod download k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator,metrics}@v0.36.0
    xtask/schema.py <kubernetes_validate dir> <module cache>/k8s.io

kubernetes-validate gives the definitions (properties, required, list and patch markers), the Go
modules give the protobuf tags, the values of enumerations, and which fields can tell zero from
absent. Only the kinds that the API server serves, and what they reference, are kept.
The output is committed, so nobody needs this script to build. Its format is told in
crates/kube/src/schema/table.rs.
"""
import gzip
import json
import pathlib
import re
import sys

VERSION = "v1.36.0"
MODULES = "v0.36.0"
KINDS = {
    "api.core.v1": "Namespace Pod Event ConfigMap Secret Service ServiceAccount Node Binding "
    "ComponentStatus "
    "Endpoints LimitRange PersistentVolume PersistentVolumeClaim PodTemplate "
    "ReplicationController ResourceQuota",
    "api.discovery.v1": "EndpointSlice",
    "api.coordination.v1": "Lease",
    "api.node.v1": "RuntimeClass",
    "api.events.v1": "Event",
    "api.policy.v1": "Eviction PodDisruptionBudget",
    "api.apps.v1": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "api.batch.v1": "CronJob Job",
    "api.autoscaling.v1": "Scale HorizontalPodAutoscaler",
    "api.autoscaling.v2": "HorizontalPodAutoscaler",
    "api.authentication.v1": "SelfSubjectReview TokenRequest TokenReview",
    "api.authorization.v1": "LocalSubjectAccessReview SelfSubjectAccessReview "
    "SelfSubjectRulesReview SubjectAccessReview",
    "api.certificates.v1": "CertificateSigningRequest",
    "api.networking.v1": "Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR",
    "api.rbac.v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "api.scheduling.v1": "PriorityClass",
    "api.storage.v1": "CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment "
    "VolumeAttributesClass",
    "api.resource.v1": "DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice",
    "api.admissionregistration.v1": "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding "
    "MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding "
    "ValidatingWebhookConfiguration",
    "api.flowcontrol.v1": "FlowSchema PriorityLevelConfiguration",
    "apiextensions-apiserver.pkg.apis.apiextensions.v1": "CustomResourceDefinition",
    "kube-aggregator.pkg.apis.apiregistration.v1": "APIService",
    "apimachinery.pkg.apis.meta.v1": "DeleteOptions",
    "metrics.pkg.apis.metrics.v1beta1": "NodeMetrics PodMetrics",
}
ROOTS = [f"io.k8s.{group}.{kind}" for group, kinds in KINDS.items() for kind in kinds.split()]
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CRD = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Q",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "I",
    META + "Time": "T",
    META + "MicroTime": "M",
    META + "FieldsV1": "F",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "R",
    CRD + "JSON": "J",
    CRD + "JSONSchemaPropsOrArray": "A",
    CRD + "JSONSchemaPropsOrBool": "B",
    CRD + "JSONSchemaPropsOrStringArray": "S",
}
SCALARS = {
    ("string", None): "s", ("string", "byte"): "y", ("boolean", None): "b",
    ("integer", "int32"): "i", ("integer", "int64"): "l", ("integer", None): "l",
    ("number", "double"): "d", ("number", None): "d", ("string", "date-time"): "T",
}
# The metrics API is an extension server's upstream, so its types are in no definitions file.
USAGE = {"type": "object", "additionalProperties": {
    "$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"}}
METRICS = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
TIMES = {
    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
    "metadata": {"$ref": META + "ObjectMeta"},
    "timestamp": {"$ref": META + "Time", "description": "The end of the measured interval."},
    "window": {"type": "string", "description": "The length of the measured interval."},
}
OWN_DEFINITIONS = {
    METRICS + "NodeMetrics": {
        "description": "NodeMetrics sets resource usage metrics of a node.",
        "properties": {**TIMES, "usage": USAGE},
        "required": ["timestamp", "window", "usage"]},
    METRICS + "PodMetrics": {
        "description": "PodMetrics sets resource usage metrics of a pod.",
        "properties": {**TIMES, "containers": {
            "type": "array", "items": {"$ref": METRICS + "ContainerMetrics"}}},
        "required": ["timestamp", "window", "containers"]},
    METRICS + "ContainerMetrics": {
        "description": "ContainerMetrics sets resource usage metrics of a container.",
        "properties": {"name": {"type": "string"}, "usage": USAGE},
        "required": ["name", "usage"]},
}


def primary(kind):
    return next(k for k in kind if k != "null") if isinstance(kind, list) else kind


def shape(schema):
    """One word for the type of a field: a letter, @Type, [item or {value."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return SPECIAL.get(name) or "@" + name
    kind = primary(schema.get("type", "object"))
    if kind == "array":
        return "[" + shape(schema["items"])
    if kind == "object":
        if "additionalProperties" in schema:
            return "{" + shape(schema["additionalProperties"])
        return "R"
    return SCALARS[(kind, schema.get("format"))]


def references(word):
    if word.lstrip("[{") in "ABS":
        return [CRD + "JSONSchemaProps"]
    return [word[word.index("@") + 1:]] if "@" in word else []


class Go:
    """What the Go sources know about their structs."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.packages = {}

    def package(self, name):
        """api.core.v1 -> (structs, aliases, enums)"""
        if name not in self.packages:
            module, *rest = name.split(".")
            folder = self.root / f"{module}@{MODULES}" / "/".join(rest)
            self.packages[name] = parse_package(folder)
        return self.packages[name]

    def fields(self, definition):
        package, _, struct = definition.removeprefix("io.k8s.").rpartition(".")
        return self.struct(package, struct, "")

    def struct(self, package, struct, prefix):
        """json name -> (tag path, can be told from absent, Go type)"""
        structs, _, _ = self.package(package)
        found = {}
        for type_name, tags in structs.get(struct, []):
            json_tag = re.search(r'json:"([^"]*)"', tags)
            number = re.search(r'protobuf:"[^,]*,(\d+)', tags)
            number = number[1] if number else ""
            name, _, options = (json_tag[1] if json_tag else "").partition(",")
            if name == "-" or not json_tag:
                continue
            if not name and "inline" in options:
                if number:
                    inner = type_name.lstrip("*")
                    owner = package
                    if "." in inner:
                        owner, inner = "apimachinery.pkg.apis.meta.v1", inner.split(".")[1]
                    found |= self.struct(owner, inner, f"{prefix}{number}.")
                continue
            is_told = type_name.startswith("*") or "omitempty" not in options
            found[name] = (prefix + number if number else "-", is_told, type_name.lstrip("*[]"))
        return found

    def enum(self, package, type_name):
        _, aliases, enums = self.package(package)
        if "." in type_name:
            return enums_of_core(self, type_name)
        return enums.get(aliases.get(type_name, type_name), [])


def enums_of_core(go, type_name):
    alias, _, name = type_name.partition(".")
    if alias in ("v1", "corev1"):
        return go.package("api.core.v1")[2].get(name, [])
    return []


def parse_package(folder):
    structs, aliases, values, marked = {}, {}, {}, set()
    for path in sorted(folder.glob("*types*.go")):
        if path.name.endswith("_test.go") or "swagger_doc" in path.name:
            continue
        struct, is_marked = None, False
        for line in path.read_text().splitlines():
            if match := re.match(r"type (\w+) struct \{", line):
                struct = structs.setdefault(match[1], [])
            elif line == "}":
                struct = None
            elif match := re.match(r"type (\w+) (?:= )?([\w.]+)$", line):
                if is_marked:
                    marked.add(match[1])
            elif match := re.match(r"\s*(?:const )?\w+\s+(\w+)\s*=\s*\"([^\"]*)\"", line):
                values.setdefault(match[1], []).append(match[2])
            elif struct is not None and (
                match := re.match(r"\t(?:(\w+)\s+)?([\w.*\[\]{}]+)\s+`(.*)`", line)
            ):
                struct.append((match[2], match[3]))
            is_marked = line.strip() == "// +enum" or (is_marked and line.startswith("//"))
    return structs, aliases, {name: values.get(name, []) for name in marked}


def flags_of(prop, schema, required, is_told, word, enum):
    flags = []
    if prop in required:
        flags.append("req")
    # A zero that was written is a value, not the lack of one.
    elif is_told and word in "sbildIQ":
        flags.append("zero")
    kind = schema.get("x-kubernetes-list-type") or schema.get("x-kubernetes-map-type")
    if kind == "map":
        flags.append("map=" + ",".join(schema["x-kubernetes-list-map-keys"]))
    elif kind in ("set", "atomic"):
        flags.append(kind)
    if "x-kubernetes-patch-strategy" in schema:
        flags.append("patch=" + schema["x-kubernetes-patch-strategy"])
    if "x-kubernetes-patch-merge-key" in schema:
        flags.append("key=" + schema["x-kubernetes-patch-merge-key"])
    if enum and word in ("s", "[s") and all(value and " " not in value for value in enum):
        flags.append("enum=" + ",".join(sorted(set(enum))))
    return flags


def main(validate_dir, modules_dir):
    path = f"kubernetes-json-schema/{VERSION}-local/_definitions.json"
    definitions = json.loads(pathlib.Path(validate_dir, path).read_text())["$defs"]
    definitions |= OWN_DEFINITIONS
    go = Go(modules_dir)
    table, texts, missing, enums = [], [], [], 0
    todo, seen = list(ROOTS), set()
    while todo:
        name = todo.pop(0)
        if name in seen:
            continue
        seen.add(name)
        schema = definitions[name]
        properties = schema.get("properties", {})
        fields = go.fields(name)
        package = name.removeprefix("io.k8s.").rpartition(".")[0]
        atomic = " atomic" if schema.get("x-kubernetes-map-type") == "atomic" else ""
        table.append(f"@{name}{atomic}")
        texts.append(f"@{name}\t{json.dumps(schema.get('description', ''), ensure_ascii=False)}")
        for prop in sorted(properties):
            field = properties[prop]
            word = shape(field)
            todo += references(word)
            tag, is_told, type_name = fields.get(prop, ("-", False, ""))
            if tag == "-" and prop not in ("apiVersion", "kind"):
                missing.append(f"{name}.{prop}")
            enum = go.enum(package, type_name)
            flags = flags_of(prop, field, schema.get("required", []), is_told, word, enum)
            # No marker says so, and a genuine server owns it as a whole.
            if name.endswith("apps.v1.ControllerRevision") and prop == "data":
                flags.append("atomic")
            enums += any(flag.startswith("enum=") for flag in flags)
            table.append(" ".join([prop, tag, word, *flags]))
            texts.append(f"{prop}\t{json.dumps(field.get('description', ''), ensure_ascii=False)}")
    print("without protobuf tag:", *missing, sep="\n  ", file=sys.stderr)
    out = pathlib.Path(__file__).resolve().parent.parent / "crates/kube/src/schema"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.txt").write_text("\n".join(table) + "\n")
    packed = gzip.compress("\n".join(texts).encode() + b"\n", 9, mtime=0)
    (out / "descriptions.txt.gz").write_bytes(packed)
    print(len(seen), "types,", len(table), "lines,", enums, "enumerations,",
          len(packed), "bytes of descriptions")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
