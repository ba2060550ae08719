#!/usr/bin/env python3
"""Makes the schema table of crates/kube from the registry packages that carry the data.

    pip download --no-deps kubernetes-validate==1.37.0 && unzip it somewhere
    the sources of k8s-pb 0.9.0, as cargo unpacks them
    xtask/schema.py <kubernetes_validate dir> <k8s-pb dir>

kubernetes-validate gives the definitions (properties, required, list and patch markers), k8s-pb
the protobuf tags. Only the kinds that the API server serves, and what they reference, are kept.
The output is committed, so nobody needs this script to build. Its format is told in
crates/kube/src/schema/table.rs.
"""
import gzip
import json
import pathlib
import re
import sys

VERSION = "v1.36.0"
ROOTS = [
    "io.k8s.api.core.v1.Namespace", "io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Event",
    "io.k8s.api.core.v1.ConfigMap", "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service", "io.k8s.api.core.v1.ServiceAccount", "io.k8s.api.core.v1.Node",
    "io.k8s.api.core.v1.Binding", "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.coordination.v1.Lease", "io.k8s.api.node.v1.RuntimeClass",
    "io.k8s.api.events.v1.Event", "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.apps.v1.Deployment", "io.k8s.api.apps.v1.ReplicaSet",
    "io.k8s.api.autoscaling.v1.Scale", "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
]
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "Q",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "I",
    META + "Time": "T",
    META + "MicroTime": "M",
    META + "FieldsV1": "F",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "R",
}
SCALARS = {
    ("string", None): "s", ("string", "byte"): "y", ("boolean", None): "b",
    ("integer", "int32"): "i", ("integer", "int64"): "l", ("integer", None): "l",
    ("number", "double"): "d", ("number", None): "d", ("string", "date-time"): "T",
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
    return [word[word.index("@") + 1:]] if "@" in word else []


def rust_messages(root):
    """(module path, struct name lowercased) -> [(json-ish name lowercased, tag, kind, type)]"""
    messages = {}
    for path in pathlib.Path(root, "src").rglob("mod.rs"):
        module = ".".join(path.relative_to(pathlib.Path(root, "src")).parent.parts)
        current, tag = None, None
        # One field per line, however long its type.
        fields = re.compile(r"pub ((?:r#)?\w+):\s+((?:[^;{}]|\n)*?),\n(?=\s*(?:///|#\[|\}))")
        text = fields.sub(
            lambda m: f"pub {m[1]}: {' '.join(m[2].split())},\n", path.read_text()
        )
        for line in text.splitlines():
            if match := re.match(r"pub struct (\w+)", line):
                current = messages.setdefault((module, match[1].lower()), [])
            elif match := re.match(r"\s+#\[prost\((.*)\)\]", line):
                number = re.search(r'tag = "(\d+)"', match[1])
                tag = number and (int(number[1]), match[1])
            elif (match := re.match(r"\s+pub (?:r#)?(\w+): (.*),", line)) and tag and current is not None:
                current.append((match[1].replace("_", "").lower(), *tag, match[2]))
                tag = None
    return messages


def message_of(name, messages):
    # io.k8s.api.core.v1.Pod -> module api.core.v1, struct pod
    parts = name.removeprefix("io.k8s.").split(".")
    return messages.get((".".join(parts[:-1]), parts[-1].lower()))


def inlined(rust_type, name, messages):
    """The message that a Go struct embeds, in the module of `name`."""
    struct = re.findall(r"(\w+)>*$", rust_type)[0]
    parts = name.removeprefix("io.k8s.").split(".")
    return messages.get((".".join(parts[:-1]), struct.lower()))


def tags_of(name, properties, messages):
    """property -> tag path: "3", or "2.1" for a field of an embedded struct."""
    message = message_of(name, messages)
    if message is None:
        print("no protobuf message for", name, file=sys.stderr)
        return {}
    wanted = {prop.lower(): prop for prop in properties}
    tags = {}
    for field, tag, _, rust_type in message:
        if field in wanted:
            tags[wanted[field]] = str(tag)
        elif (inner := inlined(rust_type, name, messages)) is not None:
            for inner_field, inner_tag, _, _ in inner:
                if inner_field in wanted:
                    tags[wanted[inner_field]] = f"{tag}.{inner_tag}"
    return tags


def flags_of(prop, schema, required):
    flags = []
    if prop in required:
        flags.append("req")
    kind = schema.get("x-kubernetes-list-type") or schema.get("x-kubernetes-map-type")
    if kind == "map":
        flags.append("map=" + ",".join(schema["x-kubernetes-list-map-keys"]))
    elif kind in ("set", "atomic"):
        flags.append(kind)
    if "x-kubernetes-patch-strategy" in schema:
        flags.append("patch=" + schema["x-kubernetes-patch-strategy"])
    if "x-kubernetes-patch-merge-key" in schema:
        flags.append("key=" + schema["x-kubernetes-patch-merge-key"])
    return flags


def main(validate_dir, pb_dir):
    path = f"kubernetes-json-schema/{VERSION}-local/_definitions.json"
    definitions = json.loads(pathlib.Path(validate_dir, path).read_text())["$defs"]
    messages = rust_messages(pb_dir)
    table, texts, missing = [], [], []
    todo, seen = list(ROOTS), set()
    while todo:
        name = todo.pop(0)
        if name in seen:
            continue
        seen.add(name)
        schema = definitions[name]
        properties = schema.get("properties", {})
        tags = tags_of(name, properties, messages)
        atomic = " atomic" if schema.get("x-kubernetes-map-type") == "atomic" else ""
        table.append(f"@{name}{atomic}")
        texts.append(f"@{name}\t{json.dumps(schema.get('description', ''), ensure_ascii=False)}")
        for prop in sorted(properties):
            field = properties[prop]
            word = shape(field)
            todo += references(word)
            tag = tags.get(prop, "-")
            if tag == "-" and prop not in ("apiVersion", "kind"):
                missing.append(f"{name}.{prop}")
            flags = flags_of(prop, field, schema.get("required", []))
            table.append(" ".join([prop, tag, word, *flags]))
            texts.append(f"{prop}\t{json.dumps(field.get('description', ''), ensure_ascii=False)}")
    print("without protobuf tag:", *missing, sep="\n  ", file=sys.stderr)
    out = pathlib.Path(__file__).resolve().parent.parent / "crates/kube/src/schema"
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.txt").write_text("\n".join(table) + "\n")
    packed = gzip.compress("\n".join(texts).encode() + b"\n", 9, mtime=0)
    (out / "descriptions.txt.gz").write_bytes(packed)
    print(len(seen), "types,", len(table), "lines,", len(packed), "bytes of descriptions")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
