//! The rules, one mistake at a time.

use super::*;

fn told(causes: Vec<Cause>) -> Vec<String> {
    let told = causes.into_iter();
    told.map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn rules() -> Value {
    json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["pods"]}])
}

fn webhook_faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut webhook = json!({"name": "a.example.org", "rules": rules(),
        "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'x'"}]});
    change(&mut webhook);
    told(webhooks(&json!({"webhooks": [webhook]})))
}

fn rule_faults(field: &str, value: Value) -> Vec<String> {
    webhook_faults(|webhook| webhook["rules"][0][field] = value)
}

#[test]
fn match_conditions_are_compiled() {
    assert_eq!(webhook_faults(|_| {}), [""; 0]);
    let condition = |expression: &str| {
        webhook_faults(|webhook| webhook["matchConditions"][0]["expression"] = expression.into())
    };
    let at = "webhooks[0].matchConditions[0].expression: ";
    assert_eq!(condition(" "), [format!("{at}Required value")]);
    let found = condition("object.");
    let start = format!("{at}Invalid value: \"object.\": compilation failed: ");
    assert!(found[0].starts_with(&start), "{found:?}");
    let found = condition("params.x");
    assert!(
        found[0].contains("undeclared reference to 'params'"),
        "{found:?}"
    );
    let bool = format!("{at}Invalid value: \"'a'\": must evaluate to bool but got string");
    assert_eq!(condition("'a'"), [bool]);
    assert_eq!(
        condition("authorizer.path('/x').check('get').allowed()"),
        [""; 0]
    );
    let found = webhook_faults(|webhook| {
        let one = |name: &str| json!({"name": name, "expression": "true"});
        webhook["matchConditions"] = json!([one("a"), one("a"), one(""), one("not ok")]);
    });
    assert_eq!(
        found[..2],
        [
            "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
            "webhooks[0].matchConditions[2].name: Required value",
        ]
    );
    assert!(found[2].starts_with("webhooks[0].matchConditions[3].name: Invalid value"));
    let many = vec![json!({"name": "a", "expression": "true"}); CONDITIONS_MAX + 1];
    let found = webhook_faults(|webhook| webhook["matchConditions"] = many.into());
    let expected = "webhooks[0].matchConditions: Too many: 65: must have at most 64 items";
    assert_eq!(found[0], expected);
}

#[test]
fn rules_say_what_they_match_without_contradiction() {
    let at = "webhooks[0].rules[0]";
    assert_eq!(
        rule_faults("operations", json!([])),
        [format!("{at}.operations: Required value")]
    );
    let found = rule_faults("operations", json!(["READ"]));
    assert!(found[0].starts_with(&format!("{at}.operations[0]: Unsupported value: \"READ\"")));
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let found = rule_faults(field, json!(["*", "v1"]));
        let end = format!("if '*' is present, must not specify other {what}");
        assert!(found[0].ends_with(&end), "{found:?}");
    }
    assert_eq!(
        rule_faults("apiVersions", json!([""])),
        [format!("{at}.apiVersions[0]: Required value")]
    );
    for (resources, end) in [
        (
            json!(["pods/*", "pods/log"]),
            "if 'pods/*' is present, must not specify pods/log",
        ),
        (
            json!(["*/scale", "a/scale"]),
            "if '*/scale' is present, must not specify a/scale",
        ),
        (
            json!(["*/*", "pods"]),
            "if '*/*' is present, must not specify other resources",
        ),
        (
            json!(["*", "pods"]),
            "if '*' is present, must not specify other resources without subresources",
        ),
    ] {
        let found = rule_faults("resources", resources);
        assert!(found[0].ends_with(end), "{found:?}");
    }
    let found = rule_faults("scope", json!("Some"));
    assert!(found[0].starts_with(&format!("{at}.scope: Unsupported value: \"Some\"")));
}

fn validating(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = json!({"metadata": {"name": "p.example.org"}, "spec": {
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules()},
        "validations": [{"expression": "object.spec.replicas <= 5"}]}});
    change(&mut object["spec"]);
    told(validating_policy(&object))
}

#[test]
fn a_policy_is_compiled_whole() {
    assert_eq!(validating(|_| {}), [""; 0]);
    let found = validating(|spec| {
        spec["paramKind"] = json!({"apiVersion": "rules.example.com/v1", "kind": "Limit"});
        spec["variables"] = json!([{"name": "max", "expression": "params.max"},
            {"name": "twice", "expression": "variables.max * 2"}]);
        spec["validations"][0] = json!({"expression": "object.x <= variables.twice",
            "messageExpression": "'at most ' + string(variables.twice)"});
        spec["auditAnnotations"] = json!([{"key": "x", "valueExpression": "'a' + params.name"}]);
    });
    assert_eq!(found, [""; 0]);
    let found = validating(|spec| spec["validations"][0]["expression"] = "variables.x".into());
    assert!(
        found[0].contains("undeclared reference to 'variables'"),
        "{found:?}"
    );
    let found = validating(|spec| {
        spec["variables"] = json!([{"name": "a", "expression": "variables.b"},
            {"name": "b", "expression": "1"}]);
    });
    assert!(found[0].contains("undefined field 'b'"), "{found:?}");
    let found = validating(|spec| {
        spec["variables"] = json!([{"name": "not ok", "expression": " "}]);
    });
    assert_eq!(
        found,
        [
            "spec.variables[0].name: Invalid value: \"not ok\": must be a valid CEL identifier",
            "spec.variables[0].expression: Required value: expression is not specified",
        ]
    );
    let found = validating(|spec| {
        let message = "authorizer.path('/').check('get').reason()";
        spec["validations"][0]["messageExpression"] = message.into();
    });
    assert!(
        found[0].contains("undeclared reference to 'authorizer'"),
        "{found:?}"
    );
    let found = validating(|spec| spec["validations"][0]["messageExpression"] = "1 == 1".into());
    let why = "must evaluate to string but got bool";
    assert!(found[0].ends_with(why), "{found:?}");
    let found = validating(|spec| spec["validations"][0]["message"] = "a\nb".into());
    assert!(
        found[0].ends_with("must not contain line breaks"),
        "{found:?}"
    );
    let found = validating(|spec| spec["validations"][0]["reason"] = "Because".into());
    assert!(
        found[0].starts_with("spec.validations[0].reason: Unsupported value"),
        "{found:?}"
    );
}

#[test]
fn a_policy_says_what_it_is_about_and_what_has_to_hold() {
    let found = validating(|spec| spec["matchConstraints"] = Value::Null);
    assert_eq!(found, ["spec.matchConstraints: Required value"]);
    let found = validating(|spec| spec["matchConstraints"] = json!({}));
    assert_eq!(
        found,
        ["spec.matchConstraints.resourceRules: Required value"]
    );
    let found = validating(|spec| spec["validations"] = json!([]));
    let why = "Required value: validations or auditAnnotations must contain at least one item";
    assert_eq!(
        found,
        [
            format!("spec.validations: {why}"),
            format!("spec.auditAnnotations: {why}")
        ]
    );
    let found = validating(|spec| spec["paramKind"] = json!({"apiVersion": "a/b/c"}));
    assert_eq!(
        found,
        [
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: \
             a/b/c",
            "spec.paramKind.kind: Required value",
        ]
    );
    let found = validating(|spec| {
        spec["matchConstraints"]["resourceRules"][0]["resourceNames"] = json!(["a", "a", "b/c"]);
    });
    let at = "spec.matchConstraints.resourceRules[0].resourceNames";
    assert_eq!(found[0], format!("{at}[1]: Duplicate value: \"a\""));
    assert!(
        found[1].starts_with(&format!("{at}[2]: Invalid value: \"b/c\"")),
        "{found:?}"
    );
}

fn mutating(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules()}, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'a': object.metadata.name}}}"}}]}});
    change(&mut object["spec"]);
    told(mutating_policy(&object))
}

#[test]
fn mutations_are_of_their_kind() {
    assert_eq!(mutating(|_| {}), [""; 0]);
    let found = mutating(|spec| spec["mutations"] = json!([]));
    assert_eq!(
        found,
        ["spec.mutations: Required value: mutations must contain at least one item"]
    );
    let found = mutating(|spec| spec["mutations"][0]["patchType"] = "JSONPatch".into());
    assert_eq!(
        found,
        [
            "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must \
             not be specified when patchType is JSONPatch",
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is \
             JSONPatch",
        ]
    );
    let found = mutating(|spec| spec["mutations"][0]["patchType"] = "Merge".into());
    assert!(found[0].starts_with("spec.mutations[0].patchType: Unsupported value: \"Merge\""));
    let found = mutating(|spec| {
        spec["mutations"][0]["applyConfiguration"]["expression"] = "true".into();
    });
    assert!(found[0].ends_with("must evaluate to Object"), "{found:?}");
    let found = mutating(|spec| {
        spec["matchConstraints"]["resourceRules"][0]["operations"] = json!(["DELETE"]);
        spec["reinvocationPolicy"] = "".into();
    });
    let at = "spec.matchConstraints.resourceRules.operations";
    assert!(
        found[0].starts_with(&format!("{at}: Unsupported value: \"DELETE\"")),
        "{found:?}"
    );
    assert_eq!(found[1], "spec.reinvocationPolicy: Required value");
}

fn binding_faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut object = json!({"spec": {"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}}});
    change(&mut object["spec"]);
    told(binding(&object, true))
}

#[test]
fn a_binding_names_a_policy_its_parameters_and_what_to_do() {
    assert_eq!(binding_faults(|_| {}), [""; 0]);
    let found = binding_faults(|spec| spec["policyName"] = "".into());
    assert_eq!(found, ["spec.policyName: Required value"]);
    let found = binding_faults(|spec| spec["validationActions"] = json!([]));
    let required = "spec.validationActions: Required value: at least one validation action is \
                    required";
    assert_eq!(found, [required]);
    let found = binding_faults(|spec| spec["validationActions"] = json!(["Deny", "Warn", "Warn"]));
    assert_eq!(
        found[0],
        "spec.validationActions[2]: Duplicate value: \"Warn\""
    );
    assert!(
        found[1].contains("must not contain both Deny and Warn"),
        "{found:?}"
    );
    let found = binding_faults(|spec| spec["paramRef"] = json!({"name": "x", "selector": {}}));
    assert_eq!(
        found,
        [
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Required value",
        ]
    );
    let found = binding_faults(|spec| spec["paramRef"] = json!({"parameterNotFoundAction": "No"}));
    assert_eq!(
        found[0],
        "spec.paramRef: Required value: one of name or selector must be specified"
    );
    assert!(found[1].starts_with("spec.paramRef.parameterNotFoundAction: Unsupported value"));
}
