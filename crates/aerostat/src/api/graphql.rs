//! `POST /graphql`: the one question that Fly's command line asks outside of the Machines API
//! before it destroys a machine, which is about the app.
//!
//! A query is a fixed text of the client. Its selection is followed over what this host knows; a
//! field that Fly has and this host has not is null, which Go reads as nothing. Every other
//! question is answered as not built.

mod query;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::AppName;

use super::error::ApiError;
use super::extract::Loose;
use super::guard::Grant;
use super::{Api, State as Shared, apps};
use crate::directory;
use query::{Argument, Field};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    query: String,
    variables: Map<String, Value>,
}

pub(super) async fn answer(
    State(api): State<Api>,
    grant: Grant,
    Loose(question): Loose<Question>,
) -> Result<Json<Value>, ApiError> {
    let fields = query::parse(&question.query).map_err(|problem| match problem {
        query::Problem::Syntax => ApiError::bad("the query cannot be read".into()),
        query::Problem::Unsupported => not_built(),
    })?;
    let mut data = Map::new();
    for field in &fields {
        let name = match field.name {
            "app" => app_name(field, &question.variables)?,
            _ => return Err(not_built()),
        };
        let Some(app) = app(&api, &grant, &name).await? else {
            return Ok(Json(not_found(field, &name)));
        };
        data.insert(field.alias.into(), select(&app, &field.fields)?);
    }
    Ok(Json(json!({ "data": data })))
}

fn not_built() -> ApiError {
    let feature = "GraphQL queries other than those about an app";
    ApiError::NotBuilt { feature }
}

fn app_name(field: &Field<'_>, variables: &Map<String, Value>) -> Result<String, ApiError> {
    let missing = || ApiError::bad("the query names no app".into());
    let given = field.arguments.iter().find(|(name, _)| *name == "name");
    let (_, given) = given.ok_or_else(missing)?;
    let name = match given {
        Argument::Text(text) => Some(*text),
        Argument::Variable(name) => variables.get(*name).and_then(Value::as_str),
    };
    Ok(name.ok_or_else(missing)?.to_owned())
}

/// The app in GraphQL's words.
async fn app(api: &Shared, grant: &Grant, name: &str) -> Result<Option<Value>, ApiError> {
    let Ok(name) = name.parse::<AppName>() else {
        return Ok(None);
    };
    let app = match api.deps.directory.app(&name).await {
        Ok(app) if !grant.reads(&app) => return Ok(None),
        Ok(app) => apps::show(api, app),
        Err(directory::Error::Refused(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(json!({
        "id": app.id,
        "internalNumericId": null,
        "name": app.name,
        "hostname": null,
        "cnameTarget": null,
        "deployed": app.machine_count > 0,
        "network": app.network,
        "status": app.status,
        "appUrl": null,
        "platformVersion": "machines",
        "role": null,
        "organization": {
            "id": app.organization.slug,
            "internalNumericId": null,
            "slug": app.organization.slug,
            "rawSlug": app.organization.slug,
            "name": app.organization.name,
            "paidPlan": null,
        },
    })))
}

/// What `fields` select of `value`.
fn select(value: &Value, fields: &[Field<'_>]) -> Result<Value, ApiError> {
    if fields.is_empty() || value.is_null() {
        return Ok(value.clone());
    }
    let mut selected = Map::new();
    for field in fields {
        let value = value.get(field.name).ok_or_else(not_built)?;
        selected.insert(field.alias.into(), select(value, &field.fields)?);
    }
    Ok(Value::Object(selected))
}

/// Errors of GraphQL are answers. Fly's clients look for this text.
fn not_found(field: &Field<'_>, name: &str) -> Value {
    let name: String = name.chars().take(80).collect();
    let message = ApiError::AppNotFound { name }.to_string();
    json!({
        "data": null,
        "errors": [{
            "message": message,
            "path": [field.alias],
            "extensions": { "code": "NOT_FOUND" },
        }],
    })
}
