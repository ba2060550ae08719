//! Expressions as policies have them, and expressions that mean harm.

use std::sync::Arc;

use serde_json::json;

use super::*;

fn with_object(object: &Value) -> Variables {
    let mut variables = Variables::default();
    variables.set("object", object);
    variables.set("self", object);
    variables
}

fn told(source: &str, object: &Value) -> String {
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => return error.to_string(),
    };
    match expression.evaluate(&with_object(object), &mut Budget::default()) {
        Ok(outcome) => match outcome.to_json() {
            Some(value) => value.to_string(),
            None => "no JSON".to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

#[test]
fn expressions_of_real_policies_have_their_values() {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a-b": "1"}},
        "spec": {"replicas": 5, "containers": [
            {"name": "c", "image": "example.com/x:1", "resources": {"limits": {"memory": "1Gi"}}},
            {"name": "d", "image": "x", "ports": [{"containerPort": 80}]}]}});
    let cases = [
        ("object.spec.replicas <= 5", "true"),
        ("object.metadata.namespace == 'n'", "true"),
        ("has(object.spec.foo)", "false"),
        (
            "!has(object.metadata.labels) || 'a-b' in object.metadata.labels",
            "true",
        ),
        (
            "object.spec.containers.all(c, c.image.startsWith('example.com/'))",
            "false",
        ),
        (
            "object.spec.containers.exists(c, has(c.ports) && c.ports.exists(p, p.containerPort == 80))",
            "true",
        ),
        ("object.spec.containers.map(c, c.name)", "[\"c\",\"d\"]"),
        (
            "object.spec.containers.filter(c, !has(c.ports)).size()",
            "1",
        ),
        (
            "quantity(object.spec.containers[0].resources.limits.memory).isGreaterThan(quantity('512Mi'))",
            "true",
        ),
        (
            "object.spec.containers.map(c, c.image).join(',')",
            "\"example.com/x:1,x\"",
        ),
        ("'x' + string(object.spec.replicas)", "\"x5\""),
        ("object.spec.nope == 1", "no such key: nope"),
        (
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1}}",
            "{\"spec\":{\"replicas\":6}}",
        ),
        ("object.?spec.?nope.orValue('none')", "\"none\""),
        ("object.metadata.name.matches('^[a-z]+$')", "true"),
        (
            "object.metadata.labels.__nope__ == 1",
            "no such key: __nope__",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(told(source, &pod), expected, "{source}");
    }
    assert!(told("object.spec.", &pod).starts_with("compilation failed: "));
    assert_eq!(told("", &pod), "compilation failed: expression is empty");
}

#[test]
fn loops_in_loops_end_by_their_budget() {
    let many: Vec<_> = (0..300).collect();
    let object = json!({"a": many});
    let started = std::time::Instant::now();
    let source = "object.a.all(x, object.a.all(y, object.a.all(z, object.a.all(w, x + y >= 0))))";
    assert_eq!(
        told(source, &object),
        "operation cancelled: actual cost limit exceeded"
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn what_is_too_deep_or_too_long_is_no_expression() {
    let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
    assert!(told(&deep, &json!({})).contains("levels of brackets"));
    let long = "1+".repeat(40_000) + "1";
    assert!(told(&long, &json!({})).contains("longer than"));
    let chain = format!("object{}", ".a".repeat(5_000));
    assert!(told(&chain, &json!({})).starts_with("compilation failed"));
    let sum = "1+".repeat(5_000) + "1";
    assert!(told(&sum, &json!({})).starts_with("compilation failed"));
}

#[test]
fn an_authorizer_is_asked_what_the_chain_says() {
    let ask: Ask = Arc::new(|question| {
        (
            question["verb"] == "create" && question["namespace"] == "n",
            "because".to_owned(),
        )
    });
    let mut variables = Variables::default();
    variables.set(AUTHORIZER, &authorizer::value());
    let check = |source: &str| {
        let expression = Expression::compile(source).expect("compiles");
        let ask = ask.clone();
        authorizer(ask, || {
            expression.evaluate(&variables, &mut Budget::default())
        })
        .expect("has a value")
        .as_bool()
    };
    let chain = "authorizer.group('').resource('pods').namespace('n')";
    assert_eq!(
        check(&format!("{chain}.check('create').allowed()")),
        Some(true)
    );
    assert_eq!(
        check(&format!("{chain}.check('delete').allowed()")),
        Some(false)
    );
    assert_eq!(
        check(&format!("{chain}.check('create').reason() == 'because'")),
        Some(true)
    );
}
