//! Scenarios in text.
//!
//! ```text
//! ## ConfigMap lifecycle                         a behaviour
//! POST /api/v1/namespaces/default/configmaps     a request
//! {"metadata": {"name": "a"}}                    its body; {N} is what was kept as N
//! < 201                                          the status that must come
//! /metadata/name = "a"                           what is at a JSON pointer
//! /data none                                     nothing is there
//! /metadata/uid some                             something is there
//! /items count 1                                 an array or object of one element
//! text has expected                              part of the body as text
//! header warning has unknown field               part of a header
//! keep RV /metadata/resourceVersion              for later requests
//! <~ 404                                         repeated until it is so
//! ```
//!
//! `OPEN why` says that the server does not do it yet; such a behaviour is told and left out.
//! A method may carry the media type of its body, `PATCH:json`, `PATCH:strategic`, `PATCH:apply`
//! (merge otherwise), `POST:yaml`, or `GET:table`, `GET:metadata`, `GET:yaml` for what it accepts. `LIFECYCLE path` with an
//! object, `PATCH` and `STATUS` merge patches is all of [`super::lifecycle`].

use serde_json::Value;

use super::http::Sent;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Behaviour {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
    /// Why the server does not do it yet.
    pub(super) open: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) act: Act,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Exchange(Exchange),
    Lifecycle(Lifecycle),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exchange {
    pub(super) sent: Sent,
    pub(super) status: u16,
    pub(super) eventually: bool,
    pub(super) checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Check {
    Equals { at: String, value: String },
    Some { at: String },
    None { at: String },
    Count { at: String, count: usize },
    Text { part: String },
    Header { name: String, part: String },
    Keep { name: String, at: String },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lifecycle {
    pub(super) collection: String,
    pub(super) object: Value,
    pub(super) patch: Option<Value>,
    pub(super) status: Option<Value>,
    /// Name of a second object, where it cannot be that of the first with a 2.
    pub(super) second: Option<String>,
}

pub(super) fn parse(text: &str) -> Vec<Behaviour> {
    let mut behaviours: Vec<Behaviour> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        if let Some(name) = line.strip_prefix("## ") {
            behaviours.push(Behaviour {
                name: name.to_owned(),
                steps: Vec::new(),
                open: None,
            });
            continue;
        }
        let behaviour = behaviours.last_mut().expect("a heading first");
        if let Some(why) = line.strip_prefix("OPEN ") {
            behaviour.open = Some(why.to_owned());
            continue;
        }
        read(&mut behaviour.steps, number + 1, line)
            .unwrap_or_else(|| panic!("line {}: {line}", number + 1));
    }
    behaviours
}

fn read(steps: &mut Vec<Step>, number: usize, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    if let Some(Step {
        act: Act::Lifecycle(life),
        ..
    }) = steps.last_mut()
    {
        let value = || serde_json::from_str(rest).ok();
        match word {
            "PATCH" if rest.starts_with('{') => return value().map(|it| life.patch = Some(it)),
            "STATUS" => return value().map(|it| life.status = Some(it)),
            "SECOND" => {
                life.second = Some(rest.to_owned());
                return Some(());
            }
            _ if line.starts_with('{') => {
                return serde_json::from_str(line).ok().map(|it| life.object = it);
            }
            _ => {}
        }
    }
    let act = match (word, rest.starts_with('/')) {
        ("LIFECYCLE", true) => Act::Lifecycle(Lifecycle {
            collection: rest.to_owned(),
            ..Lifecycle::default()
        }),
        (method, true) if method.starts_with(|c: char| c.is_ascii_uppercase()) => {
            Act::Exchange(Exchange {
                sent: request(method, rest),
                status: 200,
                eventually: false,
                checks: Vec::new(),
            })
        }
        _ => {
            let Act::Exchange(exchange) = &mut steps.last_mut()?.act else {
                return None;
            };
            return expect(exchange, word, rest, line);
        }
    };
    steps.push(Step { line: number, act });
    Some(())
}

fn request(method: &str, path: &str) -> Sent {
    let (method, kind) = method.split_once(':').unwrap_or((method, ""));
    let mut sent = Sent::new(method, path, "");
    match kind {
        "json" => sent.media = "application/json-patch+json".into(),
        "strategic" => sent.media = "application/strategic-merge-patch+json".into(),
        "yaml" if sent.method == "GET" => sent.accept = "application/yaml".into(),
        "yaml" => sent.media = "application/yaml".into(),
        "apply" => sent.media = "application/apply-patch+yaml".into(),
        "table" => sent.accept = "application/json;as=Table;v=v1;g=meta.k8s.io".into(),
        "metadata" => {
            sent.accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io".into();
        }
        "aggregated" => {
            sent.accept =
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList".into();
        }
        "" => {}
        other => sent.accept = other.into(),
    }
    sent
}

fn expect(exchange: &mut Exchange, word: &str, rest: &str, line: &str) -> Option<()> {
    let at = || word.to_owned();
    let check = match word {
        "<" | "<~" => {
            exchange.eventually = word == "<~";
            return rest.parse().ok().map(|status| exchange.status = status);
        }
        "text" => Check::Text {
            part: rest.strip_prefix("has ")?.to_owned(),
        },
        "header" => {
            let (name, part) = rest.split_once(" has ")?;
            Check::Header {
                name: name.to_owned(),
                part: part.to_owned(),
            }
        }
        "keep" => {
            let (name, at) = rest.split_once(' ')?;
            Check::Keep {
                name: name.to_owned(),
                at: at.to_owned(),
            }
        }
        _ if word.starts_with('/') => match rest.split_once(' ').unwrap_or((rest, "")) {
            ("=", value) => Check::Equals {
                at: at(),
                value: value.to_owned(),
            },
            ("some", "") => Check::Some { at: at() },
            ("none", "") => Check::None { at: at() },
            ("count", count) => Check::Count {
                at: at(),
                count: count.parse().ok()?,
            },
            _ => return None,
        },
        // A body of one or more lines.
        _ => {
            exchange.sent.body.extend([line, "\n"]);
            return Some(());
        }
    };
    exchange.checks.push(check);
    Some(())
}

#[test]
fn a_scenario_is_requests_and_what_must_come_back() {
    let text =
        "## one\nPATCH:json /a\n[1]\n<~ 201\n/x = \"y z\"\nkeep A /b\n## two\nGET /c\n/d none";
    let behaviours = parse(text);
    assert_eq!((behaviours.len(), behaviours[1].name.as_str()), (2, "two"));
    let Act::Exchange(exchange) = &behaviours[0].steps[0].act else {
        panic!("an exchange");
    };
    assert_eq!((exchange.status, exchange.eventually), (201, true));
    assert_eq!(exchange.sent.body, "[1]\n");
    assert_eq!(exchange.sent.media, "application/json-patch+json");
    let equals = Check::Equals {
        at: "/x".into(),
        value: "\"y z\"".into(),
    };
    let keep = Check::Keep {
        name: "A".into(),
        at: "/b".into(),
    };
    assert_eq!(exchange.checks, [equals, keep]);
}
