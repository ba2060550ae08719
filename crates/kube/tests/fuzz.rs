//! Hostile clients of the API server cost an error, never a panic: stored cases and mutations.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use std::path::Path;

fn check(target: &str, words: &[&str], run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    corpus::check(&folder.join(target), words, run);
}

#[test]
fn any_body_is_stored_as_it_will_be_read_or_refused() {
    let words = [
        "pods\n",
        "configmaps\n",
        "events\n",
        "\"spec\":",
        "\"metadata\":",
        "\"name\":",
        "1Gi",
        "k8s\0",
        "\x0a\x02",
        "\x12\x00",
        "\u{7f}",
    ];
    check("body", &words, kube::fuzz::body);
}

#[test]
fn any_patch_gives_an_object_or_is_refused() {
    let words = [
        "\"$patch\":",
        "\"delete\"",
        "\"replace\"",
        "\"$retainKeys\":",
        "\"$setElementOrder/containers\":",
        "\"$deleteFromPrimitiveList/finalizers\":",
        "\"containers\":",
        "\"name\":",
        "/spec/containers/0",
        "/metadata",
        "/-",
        "~1",
        "\"op\":",
        "\"copy\"",
        "\"move\"",
        "\"test\"",
        "\"from\":",
        "\"path\":",
        "\"value\":",
    ];
    check("patch", &words, kube::fuzz::patch);
}

#[test]
fn any_apply_gives_an_object_that_it_leaves_alone_the_next_time() {
    let words = [
        "pods\n",
        "services\n",
        "deployments\n",
        "configmaps\n",
        "spec:",
        "metadata:",
        "containers:",
        "ports:",
        "- name: web",
        "- containerPort: 80",
        "protocol: UDP",
        "labels:",
        "finalizers:",
        "env:",
        "\n  ",
        "&a ",
        "*a",
        "|\n",
    ];
    check("apply", &words, kube::fuzz::apply);
}

#[test]
fn any_set_of_fields_is_read_as_it_is_written_and_behaves_like_a_set() {
    let words = [
        "\"f:\"",
        "\"f:a\"",
        "\".\"",
        "\"k:{\\\"a\\\":1}\"",
        "\"v:1.0\"",
        "\"i:1\"",
        "\n",
        ":{}",
        "\"Update\"",
        "\"Apply\"",
        "\"manager\":",
        "\"fieldsV1\":",
    ];
    check("fields", &words, kube::fuzz::fields);
}

#[test]
fn any_yaml_is_read_as_something_that_can_be_stored_or_refused() {
    let words = [
        "---\n",
        "\n- ",
        "\n  ",
        "&a ",
        "*a",
        "!!int ",
        "!!binary ",
        "<<: *a",
        "|-\n",
        ">\n",
        "? ",
        ".nan",
        ".inf",
        "0x1f",
        "0o17",
        "1_000",
        "~",
        "yes",
        "# ",
        "%YAML 1.1\n",
        "...\n",
    ];
    check("yaml", &words, kube::fuzz::yaml);
}

#[test]
fn any_request_line_is_read_or_refused() {
    let words = [
        "labelSelector=",
        "fieldSelector=",
        "continue=",
        "%20",
        "%00",
        "%c3%a9",
        "&",
        " in (",
        ")",
        "!",
        "==",
        "!=",
        ">",
        "namespaces",
        "pods",
        "watch=1",
        "limit=",
        "metadata.name=",
        "\n",
        "application/json;as=Table;v=v1",
    ];
    check("request", &words, kube::fuzz::request);
}

#[test]
fn any_message_of_exec_is_read_or_passed_over() {
    let words = ["\x04", "\u{ff}", "{\"Width\":", "\"Height\":", "65536"];
    check("exec_message", &words, kube::fuzz::exec_message);
}

#[test]
fn any_path_leads_somewhere_or_nowhere() {
    let words = [
        "..", "[*]", "[?(@.", "==", "<=", "')]", "[-1]", "[0:2]", "\\.", "$", "{.", "@", "['",
    ];
    check("json_path", &words, kube::fuzz::json_path);
}

#[test]
fn any_schema_and_object_are_judged() {
    let words = [
        "\"type\":",
        "\"object\"",
        "\"array\"",
        "\"properties\":",
        "\"items\":",
        "\"default\":",
        "\"required\":",
        "\"pattern\":",
        "\"oneOf\":",
        "\"nullable\":true",
        "\"additionalProperties\":",
        "\"x-kubernetes-preserve-unknown-fields\":true",
        "\"x-kubernetes-embedded-resource\":true",
        "\"x-kubernetes-int-or-string\":true",
        "\"x-kubernetes-validations\":",
        "\"rule\":",
        "self.",
        ".all(x,",
        "oldSelf",
        "\n",
    ];
    check("custom", &words, kube::fuzz::custom);
}

#[test]
fn any_credential_is_somebodys_or_refused() {
    let words = [
        "authorization: Bearer ",
        "impersonate-user: ",
        "impersonate-group: ",
        "impersonate-uid: ",
        "impersonate-extra-",
        "system:serviceaccount:",
        "system:anonymous",
        "eyJhbGciOiJub25lIn0",
        "%2f",
        "\n",
    ];
    check("credentials", &words, kube::fuzz::credentials);
}
