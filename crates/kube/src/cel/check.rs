//! What can be said of an expression of a policy or webhook before it is run: whether the names it
//! uses are there, and whether it can have the type that is wanted.
//!
//! Objects may be anything here, so types are followed only where the words alone tell them.

use std::rc::Rc;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};

use super::Expression;
use super::infer::{Names, infer};
use super::types::{Shape, Type};

/// What an expression must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Bool,
    Text,
    TextOrNull,
    Object,
    List,
    Anything,
}

/// What an expression may name.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    names: Vec<&'static str>,
    /// Fields of `variables`, if the policy can have some.
    variables: Option<Vec<(String, Type)>>,
}

/// An object that the server itself makes.
#[derive(Debug)]
struct Fields {
    name: &'static str,
    fields: Vec<(String, Type)>,
}

impl Fields {
    fn make(name: &'static str, fields: Vec<(&str, Type)>) -> Type {
        let fields = fields.into_iter();
        let fields = fields.map(|(name, known)| (name.to_owned(), known));
        Type::Object(Rc::new(Self {
            name,
            fields: fields.collect(),
        }))
    }
}

impl Shape for Fields {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        let found = self.fields.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, known)| known.clone())
    }
}

fn text() -> Type {
    Type::plain("string")
}

fn texts() -> Type {
    Type::List(Box::new(text()))
}

fn map_of(value: Type) -> Type {
    Type::Map(Box::new(text()), Box::new(value))
}

/// `request`: what is asked, and by whom.
fn request() -> Type {
    let kind = |word| {
        let fields = vec![("group", text()), ("version", text()), (word, text())];
        Fields::make("kubernetes.GroupVersion", fields)
    };
    let user = vec![
        ("username", text()),
        ("uid", text()),
        ("groups", texts()),
        ("extra", map_of(texts())),
    ];
    Fields::make(
        "kubernetes.AdmissionRequest",
        vec![
            ("kind", kind("kind")),
            ("resource", kind("resource")),
            ("subResource", text()),
            ("requestKind", kind("kind")),
            ("requestResource", kind("resource")),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", Fields::make("kubernetes.UserInfo", user)),
            ("dryRun", Type::plain("bool")),
            ("options", Type::Dyn),
            ("uid", text()),
        ],
    )
}

/// `namespaceObject`: the namespace that the request is in.
fn namespace() -> Type {
    let time = || Type::plain("timestamp");
    let meta = vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", map_of(text())),
        ("annotations", map_of(text())),
        ("UID", text()),
        ("uid", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", Type::plain("int")),
        ("deletionTimestamp", time()),
        ("generation", Type::plain("int")),
        ("resourceVersion", text()),
        ("finalizers", texts()),
    ];
    let spec = vec![("finalizers", texts())];
    let status = vec![
        ("phase", text()),
        ("conditions", Type::List(Box::new(Type::Dyn))),
    ];
    Fields::make(
        "kubernetes.Namespace",
        vec![
            (
                "metadata",
                Fields::make("kubernetes.NamespaceMetadata", meta),
            ),
            ("spec", Fields::make("kubernetes.NamespaceSpec", spec)),
            ("status", Fields::make("kubernetes.NamespaceStatus", status)),
        ],
    )
}

impl Scope {
    /// The request and its objects.
    pub(crate) fn of_request() -> Self {
        Self {
            names: vec!["object", "oldObject", "request", "namespaceObject"],
            variables: None,
        }
    }

    pub(crate) fn with(mut self, name: &'static str) -> Self {
        self.names.push(name);
        self
    }

    /// A policy's own variables, of which those declared before can be named.
    pub(crate) fn with_variables(mut self) -> Self {
        self.variables = Some(Vec::new());
        self
    }

    /// A variable has the type of its expression.
    pub(crate) fn declare(&mut self, variable: &str, expression: &str) {
        // What cannot be compiled may be nested without end.
        let compiled = Expression::compile(expression).ok();
        let known = compiled.and_then(|_| infer(expression, &self.typed()).ok().flatten());
        let known = known.unwrap_or(Type::Dyn);
        let declared = self.variables.get_or_insert_default();
        declared.push((variable.to_owned(), known));
    }

    fn typed(&self) -> Names {
        let known = |name: &str| match name {
            "request" => request(),
            "namespaceObject" => namespace(),
            "authorizer" => Type::plain(AUTHORIZER_TYPE),
            _ => Type::Dyn,
        };
        let names = self.names.iter();
        let mut names: Vec<_> = names
            .map(|name| ((*name).to_owned(), known(name)))
            .collect();
        if let Some(fields) = &self.variables {
            let fields = Fields {
                name: "kubernetes.variables",
                fields: fields.clone(),
            };
            names.push(("variables".to_owned(), Type::Object(Rc::new(fields))));
        }
        Names(names)
    }
}

const AUTHORIZER_TYPE: &str = "kubernetes.authorization.Authorizer";

/// What the words tell of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Number,
    Text,
    Bytes,
    List,
    Map,
    Null,
    Unknown,
}

/// # Errors
/// What is wrong with it, in upstream's words.
pub(crate) fn check(source: &str, scope: &Scope, wanted: Wanted) -> Result<(), String> {
    let expression = Expression::compile(source).map_err(|error| error.to_string())?;
    let found = infer(source, &scope.typed());
    let found = found.map_err(|told| format!("compilation failed: {told}"))?;
    let (all, what): (&[&str], _) = match wanted {
        Wanted::Bool => (&["bool"], "bool"),
        Wanted::Text => (&["string"], "string"),
        Wanted::TextOrNull => (&["string", "null"], "one of [string null_type]"),
        Wanted::Object | Wanted::List | Wanted::Anything => (&[], ""),
    };
    match found {
        Some(found) if !all.is_empty() => {
            return match all.contains(&found.to_string().as_str()) {
                true => Ok(()),
                false => Err(format!("must evaluate to {what} but got {found}")),
            };
        }
        Some(_) | None => {}
    }
    let mut checker = Checker {
        scope,
        loops: Vec::new(),
    };
    let kind = checker
        .expression(expression.code())
        .map_err(|wrong| wrong.told(source))?;
    let fits = |all: &[Kind]| kind == Kind::Unknown || all.contains(&kind);
    let (is_fine, what) = match wanted {
        Wanted::Bool => (fits(&[Kind::Bool]), "bool"),
        Wanted::Text => (fits(&[Kind::Text]), "string"),
        Wanted::TextOrNull => (fits(&[Kind::Text, Kind::Null]), "one of [string null_type]"),
        Wanted::Object => (fits(&[Kind::Map]), "Object"),
        Wanted::List => (fits(&[Kind::List]), "list(JSONPatch)"),
        Wanted::Anything => (true, ""),
    };
    match is_fine {
        true => Ok(()),
        false => Err(format!("must evaluate to {what}")),
    }
}

/// A mistake and the word it is about.
struct Wrong {
    text: String,
    /// As it stands in the source.
    word: String,
}

impl Wrong {
    fn undeclared(name: &str) -> Self {
        Self {
            text: format!("undeclared reference to '{name}' (in container '')"),
            word: name.to_owned(),
        }
    }

    fn undefined(field: &str) -> Self {
        Self {
            text: format!("undefined field '{field}'"),
            word: format!(".{field}"),
        }
    }

    /// As the compiler shows it: where, what, and the line with a mark.
    fn told(&self, source: &str) -> String {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let at = source.match_indices(&self.word).find(|(at, word)| {
            let before = source[..*at].chars().next_back();
            let after = source[at + word.len()..].chars().next();
            let begins = word.starts_with('.') || before.is_none_or(|c| !is_word(c) && c != '.');
            begins && after.is_none_or(|c| !is_word(c))
        });
        let at = at.map_or(0, |(at, _)| at);
        let before = &source[..at];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = source[start..at].chars().count();
        let shown = source[start..].lines().next().unwrap_or_default();
        format!(
            "compilation failed: ERROR: <input>:{line}:{}: {}\n | {shown}\n | {}^",
            column + 1,
            self.text,
            ".".repeat(column)
        )
    }
}

struct Checker<'a> {
    scope: &'a Scope,
    /// Variables of the loops around.
    loops: Vec<&'a str>,
}

/// Fields of `request` that are objects with fields of their own.
const REQUEST: [(&str, &[&str]); 13] = [
    ("kind", &["group", "version", "kind"]),
    ("resource", &["group", "version", "resource"]),
    ("subResource", &[]),
    ("requestKind", &["group", "version", "kind"]),
    ("requestResource", &["group", "version", "resource"]),
    ("requestSubResource", &[]),
    ("name", &[]),
    ("namespace", &[]),
    ("operation", &[]),
    ("userInfo", &["username", "uid", "groups", "extra"]),
    ("dryRun", &[]),
    ("options", &[]),
    ("uid", &[]),
];

impl<'a> Checker<'a> {
    fn expression(&mut self, code: &'a IdedExpr) -> Result<Kind, Wrong> {
        match &code.expr {
            Expr::Unspecified => Ok(Kind::Unknown),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                self.expression(&select.operand)?;
                self.field(&select.operand, &select.field)?;
                Ok(if select.test {
                    Kind::Bool
                } else {
                    Kind::Unknown
                })
            }
            Expr::Call(call) => {
                let parts = call.target.as_deref().into_iter().chain(&call.args);
                let mut kinds = Vec::new();
                for part in parts {
                    kinds.push(self.expression(part)?);
                }
                Ok(of_call(&call.func_name, &kinds))
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.expression(element)?;
                }
                Ok(Kind::List)
            }
            Expr::Map(map) => {
                self.entries(map.entries.iter().map(|entry| &entry.expr))?;
                Ok(Kind::Map)
            }
            Expr::Struct(made) => {
                self.entries(made.entries.iter().map(|entry| &entry.expr))?;
                Ok(Kind::Map)
            }
            Expr::Comprehension(each) => {
                self.expression(&each.iter_range)?;
                let begin = self.expression(&each.accu_init)?;
                let depth = self.loops.len();
                self.loops.push(&each.iter_var);
                self.loops.extend(each.iter_var2.as_deref());
                self.loops.push(&each.accu_var);
                self.expression(&each.loop_cond)?;
                self.expression(&each.loop_step)?;
                let end = self.expression(&each.result)?;
                self.loops.truncate(depth);
                let is_sum =
                    matches!(&each.result.expr, Expr::Ident(name) if *name == each.accu_var);
                Ok(if is_sum { begin } else { end })
            }
        }
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Result<(), Wrong> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => drop(self.expression(&field.value)?),
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key)?;
                    self.expression(&entry.value)?;
                }
            }
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Result<Kind, Wrong> {
        /// Types, and families of functions.
        const KNOWN: [&str; 23] = [
            "bool",
            "bytes",
            "double",
            "duration",
            "dyn",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "timestamp",
            "type",
            "uint",
            "base64",
            "cidr",
            "format",
            "ip",
            "jsonpatch",
            "math",
            "optional",
            "semver",
            "sets",
            "strings",
        ];
        let is_known = self.loops.contains(&name)
            || self.scope.names.contains(&name)
            || (name == "variables" && self.scope.variables.is_some())
            || KNOWN.contains(&name)
            || name.starts_with(['@', '_']);
        match is_known {
            true => Ok(Kind::Unknown),
            false => Err(Wrong::undeclared(name)),
        }
    }

    /// The fields of what the server itself makes are known.
    fn field(&self, of: &IdedExpr, name: &str) -> Result<(), Wrong> {
        let fields = |field: &str| REQUEST.iter().find(|(known, _)| *known == field);
        let is_there = match &of.expr {
            Expr::Ident(known) if self.loops.contains(&known.as_str()) => true,
            Expr::Ident(known) if known == "request" => fields(name).is_some(),
            Expr::Ident(known) if known == "variables" => {
                let declared = self.scope.variables.as_deref().unwrap_or_default();
                declared.iter().any(|(variable, _)| variable == name)
            }
            Expr::Select(outer) => match (&outer.operand.expr, fields(&outer.field)) {
                (Expr::Ident(known), Some((_, below)))
                    if known == "request" && !below.is_empty() =>
                {
                    below.contains(&name)
                }
                _ => true,
            },
            _ => true,
        };
        match is_there {
            true => Ok(()),
            false => Err(Wrong::undefined(name)),
        }
    }
}

fn of_literal(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Bool,
        LiteralValue::Bytes(_) => Kind::Bytes,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number,
        LiteralValue::Null => Kind::Null,
        LiteralValue::String(_) => Kind::Text,
    }
}

fn of_call(name: &str, parts: &[Kind]) -> Kind {
    let first = parts.first().copied().unwrap_or(Kind::Unknown);
    match name {
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::EQUALS
        | operators::NOT_EQUALS
        | operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS
        | operators::IN
        | "startsWith"
        | "endsWith"
        | "matches"
        | "allowed"
        | "isSorted"
        | "hasValue" => Kind::Bool,
        operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE => {
            match (first, parts.get(1)) {
                (Kind::Unknown, Some(second)) => *second,
                _ => first,
            }
        }
        operators::CONDITIONAL => match parts {
            [_, one, other] if one == other => *one,
            _ => Kind::Unknown,
        },
        "size" | "int" | "uint" | "double" => Kind::Number,
        "string" | "lowerAscii" | "upperAscii" | "trim" | "join" | "replace" | "substring" => {
            Kind::Text
        }
        // A value that is only weighed is what it was.
        name if name.starts_with("__") && parts.len() == 1 => first,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str, wanted: Wanted) -> Result<(), String> {
        let mut scope = Scope::of_request().with_variables();
        scope.declare("known", "object.x == 1");
        check(source, &scope, wanted)
    }

    #[test]
    fn what_may_be_fine_passes() {
        for source in [
            "object.spec.replicas <= 5",
            "!has(object.metadata.labels) || object.metadata.labels.all(key, key != 'x')",
            "object.spec.containers.exists(c, c.image.startsWith('a/'))",
            "variables.known",
            "request.userInfo.username == 'a' && request.kind.group in ['apps', '']",
            "oldObject == null || optional.of(object).hasValue()",
            "['a', 'b'].exists(x, x == request.namespace)",
            "type(object) == map",
        ] {
            assert_eq!(told(source, Wanted::Bool), Ok(()), "{source}");
        }
        assert_eq!(told("'a' + string(object.x)", Wanted::Text), Ok(()));
        assert_eq!(told("null", Wanted::TextOrNull), Ok(()));
        assert_eq!(
            told("Object{spec: Object.spec{a: 1}}", Wanted::Object),
            Ok(())
        );
        assert_eq!(
            told("[JSONPatch{op: 'add', path: '/a'}]", Wanted::List),
            Ok(())
        );
    }

    #[test]
    fn names_that_are_not_there_are_shown_where_they_stand() {
        assert_eq!(
            told("true &&\n  params.x == 1", Wanted::Bool),
            Err(
                "compilation failed: ERROR: <input>:2:3: undeclared reference to 'params' (in \
                 container '')\n |   params.x == 1\n | ..^"
                    .to_owned()
            )
        );
        assert_eq!(
            told("request.kin == 'a'", Wanted::Bool),
            Err(
                "compilation failed: ERROR: <input>:1:8: undefined field 'kin'\n | request.kin == \
                 'a'\n | .......^"
                    .to_owned()
            )
        );
        for source in [
            "variables.other",
            "request.kind.name == ''",
            "authorizer.path('/').x",
        ] {
            assert!(told(source, Wanted::Bool).is_err(), "{source}");
        }
        assert!(told("object.", Wanted::Bool).is_err_and(|why| why.contains("compilation failed")));
    }

    #[test]
    fn an_expression_is_of_the_type_that_is_wanted() {
        for (source, is) in [
            ("'a'", "string"),
            ("1 + 1", "int"),
            ("[true]", "list(bool)"),
            ("object.spec.map(x, x)", "list(dyn)"),
            ("{'a': 1}", "map(string, int)"),
            ("size('a')", "int"),
            ("object.spec.paused", "dyn"),
        ] {
            let expected = Err(format!("must evaluate to bool but got {is}"));
            assert_eq!(told(source, Wanted::Bool), expected, "{source}");
        }
        let text = Err("must evaluate to string but got bool".to_owned());
        assert_eq!(told("object.x == 1", Wanted::Text), text);
        let either = Err("must evaluate to one of [string null_type] but got bool".to_owned());
        assert_eq!(told("true", Wanted::TextOrNull), either);
    }
}
