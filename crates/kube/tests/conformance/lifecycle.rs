//! The life that every kind must be able to live: created, read, listed, watched, patched, updated,
//! its status written, deleted alone and with all that have a label.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Http, Sent};
use super::scenario::Lifecycle;

const EVENTUALLY: Duration = Duration::from_secs(30);
const LABEL: &str = "lifecycle";

pub(super) async fn run(http: &Http, life: &Lifecycle) -> Result<(), String> {
    let life = Life::new(http, life);
    life.is_discovered().await?;
    let before = life.json(200, Sent::get(&life.selected())).await?;
    is(&before["items"], &json!([]), "nothing is there before")?;
    let created = life.create(&life.name).await?;
    let read = life.json(200, Sent::get(&life.path())).await?;
    is(
        &read["metadata"]["uid"],
        &created["metadata"]["uid"],
        "what is read is what was created",
    )?;
    for list in [life.selected(), life.everywhere()] {
        let listed = life.json(200, Sent::get(&list)).await?;
        is(
            &listed["items"][0]["metadata"]["name"],
            &json!(life.name),
            "it is listed",
        )?;
    }
    life.changes().await?;
    if let Some(status) = &life.life.status {
        life.status_changes(status).await?;
    }
    let second = life
        .life
        .second
        .clone()
        .unwrap_or_else(|| format!("{}2", life.name));
    life.create(&second).await?;
    life.json(200, Sent::new("DELETE", &life.path(), ""))
        .await?;
    life.is_gone().await?;
    life.json(200, Sent::new("DELETE", &life.selected(), ""))
        .await?;
    life.none_is_left().await?;
    life.watch_told(
        before["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default(),
    )
    .await
}

struct Life<'a> {
    http: &'a Http,
    life: &'a Lifecycle,
    name: String,
    plural: &'a str,
}

impl<'a> Life<'a> {
    fn new(http: &'a Http, life: &'a Lifecycle) -> Self {
        let name = life.object["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let plural = life.collection.rsplit('/').next().expect("a plural");
        Self {
            http,
            life,
            name,
            plural,
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.life.collection, self.name)
    }

    fn selected(&self) -> String {
        format!(
            "{}?labelSelector={LABEL}%3D{}",
            self.life.collection, self.plural
        )
    }

    /// Those of all namespaces.
    fn everywhere(&self) -> String {
        self.selected().replace("/namespaces/default/", "/")
    }

    async fn json(&self, status: u16, sent: Sent) -> Result<Value, String> {
        let answer = self.http.send(&sent).await;
        if answer.status == status {
            return Ok(answer.json());
        }
        let (method, path) = (&sent.method, &sent.path);
        Err(format!(
            "{method} {path}: {} {}",
            answer.status, answer.text
        ))
    }

    async fn is_discovered(&self) -> Result<(), String> {
        let parts: Vec<_> = self.life.collection.trim_matches('/').split('/').collect();
        let version = match parts[..] {
            ["api", version, ..] => format!("/api/{version}"),
            ["apis", group, version, ..] => {
                let groups = self.json(200, Sent::get("/apis")).await?;
                let mut groups = groups["groups"].as_array().into_iter().flatten();
                if !groups.any(|it| it["name"] == group) {
                    return Err(format!("group {group} is not discovered"));
                }
                let one = self.json(200, Sent::get(&format!("/apis/{group}"))).await?;
                let mut versions = one["versions"].as_array().into_iter().flatten();
                if !versions.any(|it| it["version"] == version) {
                    return Err(format!("version {version} is not discovered"));
                }
                format!("/apis/{group}/{version}")
            }
            _ => return Err("not a path of objects".into()),
        };
        let resources = self.json(200, Sent::get(&version)).await?;
        let mut resources = resources["resources"].as_array().into_iter().flatten();
        let found = resources.any(|it| it["name"] == self.plural);
        if found {
            Ok(())
        } else {
            Err(format!("{} is not discovered", self.plural))
        }
    }

    async fn create(&self, name: &str) -> Result<Value, String> {
        let mut object = self.life.object.clone();
        object["metadata"]["name"] = name.into();
        object["metadata"]["labels"][LABEL] = self.plural.into();
        let path = format!("{}?fieldValidation=Strict", self.life.collection);
        let created = self
            .json(201, Sent::new("POST", &path, &object.to_string()))
            .await?;
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            if !created["metadata"][field].is_string() {
                return Err(format!("{field} is missing: {created}"));
            }
        }
        within(&object, &created)?;
        Ok(created)
    }

    async fn changes(&self) -> Result<(), String> {
        let label = json!({"metadata": {"labels": {"patched": "yes"}}});
        let patches = self.life.patch.iter().chain([&label]);
        for patch in patches {
            let patched = self
                .json(200, Sent::new("PATCH", &self.path(), &patch.to_string()))
                .await?;
            within(patch, &patched)?;
        }
        // Controllers write to some kinds at the same time.
        let begin = Instant::now();
        loop {
            let mut fresh = self.json(200, Sent::get(&self.path())).await?;
            fresh["metadata"]["annotations"]["updated"] = "yes".into();
            let updated = Sent::new("PUT", &self.path(), &fresh.to_string());
            match self.json(200, updated).await {
                Ok(updated) => {
                    let annotation = &updated["metadata"]["annotations"]["updated"];
                    return is(annotation, &json!("yes"), "an update stays");
                }
                Err(problem) if begin.elapsed() > EVENTUALLY => return Err(problem),
                Err(problem) if !problem.contains("409") => return Err(problem),
                Err(_) => {}
            }
        }
    }

    async fn status_changes(&self, status: &Value) -> Result<(), String> {
        let path = format!("{}/status", self.path());
        let patched = self
            .json(200, Sent::new("PATCH", &path, &status.to_string()))
            .await?;
        within(status, &patched)?;
        let mut read = self.json(200, Sent::get(&path)).await?;
        read["metadata"]["annotations"]["status"] = "updated".into();
        self.json(200, Sent::new("PUT", &path, &read.to_string()))
            .await?;
        Ok(())
    }

    async fn is_gone(&self) -> Result<(), String> {
        let begin = Instant::now();
        while self.json(404, Sent::get(&self.path())).await.is_err() {
            if begin.elapsed() > EVENTUALLY {
                return Err("a deleted object stays".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn none_is_left(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let list = self.json(200, Sent::get(&self.selected())).await?;
            if list["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            if begin.elapsed() > EVENTUALLY {
                return Err(format!("a deleted collection stays: {list}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn watch_told(&self, from: &str) -> Result<(), String> {
        let path = format!(
            "{}&watch=true&resourceVersion={from}&timeoutSeconds=20",
            self.selected()
        );
        let events = self.http.watch(&path, "DELETED").await;
        let ours = events
            .iter()
            .filter(|it| it["object"]["metadata"]["name"] == self.name.as_str());
        let mut kinds: Vec<_> = ours.filter_map(|event| event["type"].as_str()).collect();
        kinds.dedup();
        let told = kinds == ["ADDED", "MODIFIED", "DELETED"];
        if told {
            Ok(())
        } else {
            Err(format!("the watch told {kinds:?}"))
        }
    }
}

fn is(value: &Value, expected: &Value, what: &str) -> Result<(), String> {
    if value == expected {
        return Ok(());
    }
    Err(format!("{what}: {value} is not {expected}"))
}

/// Everything of `part` stands in `whole`.
fn within(part: &Value, whole: &Value) -> Result<(), String> {
    match (part, whole) {
        (Value::Object(part), _) => {
            for (key, value) in part {
                within(value, &whole[key]).map_err(|at| format!("{key}: {at}"))?;
            }
            Ok(())
        }
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => part
            .iter()
            .zip(whole)
            .try_for_each(|(part, whole)| within(part, whole)),
        _ => is(whole, part, "differs"),
    }
}
