//! One method of one path, and what is to be said about it.

use std::time::Duration;

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::super::Api;

/// How long an answer may take to begin. What goes on for longer (a watch, a stream) has its own
/// end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Limit {
    /// Everything that answers when its change is recorded. Longer than the longest wait (60 s).
    Usual,
    /// One-shot exec has a time limit of its own, a little below this.
    Long,
    /// An import converts a whole image; a file copy ends when everything is there.
    Transfer,
}

impl Limit {
    pub(in crate::api) fn duration(self) -> Duration {
        match self {
            Self::Usual => Duration::from_secs(75),
            Self::Long => Duration::from_secs(345),
            Self::Transfer => Duration::from_secs(3600),
        }
    }
}

/// Name and meaning of something in a query or a header.
pub(in crate::api) type Parameter = (&'static str, &'static str);

/// What a body holds.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Content {
    pub(in crate::api) media: &'static str,
    /// Of each line, for newline-delimited JSON.
    pub(in crate::api) schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Content {
    fn json<T: JsonSchema>() -> Self {
        Self {
            media: "application/json",
            schema: Some(|generator| generator.subschema_for::<T>()),
        }
    }
}

#[derive(Debug)]
pub(in crate::api) struct Route {
    pub(in crate::api) method: Method,
    pub(in crate::api) path: &'static str,
    pub(in crate::api) summary: &'static str,
    pub(in crate::api) query: &'static [Parameter],
    pub(in crate::api) headers: &'static [Parameter],
    pub(in crate::api) body: Option<Content>,
    /// Of success. Errors have one form everywhere.
    pub(in crate::api) answers: Vec<(u16, Option<Content>)>,
    pub(in crate::api) limit: Limit,
    pub(in crate::api) handler: MethodRouter<Api>,
}

macro_rules! verbs {
    ($($name:ident $method:ident),*) => {
        $(pub(super) fn $name<H, T>(path: &'static str, summary: &'static str, handler: H) -> Route
        where
            H: Handler<T, Api>,
            T: 'static,
        {
            Route::new(Method::$method, path, summary, on(MethodFilter::$method, handler))
        })*
    };
}

verbs!(get GET, post POST, put PUT, patch PATCH, delete DELETE);

impl Route {
    fn new(
        method: Method,
        path: &'static str,
        summary: &'static str,
        handler: MethodRouter<Api>,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            query: &[],
            headers: &[],
            body: None,
            answers: Vec::new(),
            limit: Limit::Usual,
            handler,
        }
    }

    pub(super) fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    pub(super) fn headers(mut self, headers: &'static [Parameter]) -> Self {
        self.headers = headers;
        self
    }

    /// Takes a body of JSON.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(Content::json::<T>());
        self
    }

    /// Takes a body that is no JSON.
    pub(super) fn takes_media(mut self, media: &'static str) -> Self {
        let schema = None;
        self.body = Some(Content { media, schema });
        self
    }

    /// Answers 200 with JSON.
    pub(super) fn gives<T: JsonSchema>(self) -> Self {
        self.answer(200, Some(Content::json::<T>()))
    }

    /// Answers 201 with JSON.
    pub(super) fn creates<T: JsonSchema>(self) -> Self {
        self.answer(201, Some(Content::json::<T>()))
    }

    /// Answers 202 with JSON.
    pub(super) fn accepts<T: JsonSchema>(self) -> Self {
        self.answer(202, Some(Content::json::<T>()))
    }

    /// Answers 200 with newline-delimited JSON that goes on for a while.
    pub(super) fn streams<T: JsonSchema>(self) -> Self {
        let content = Content {
            media: "application/x-ndjson",
            ..Content::json::<T>()
        };
        self.answer(200, Some(content))
    }

    /// Answers 200 with something that is no JSON.
    pub(super) fn gives_media(self, media: &'static str) -> Self {
        let schema = None;
        self.answer(200, Some(Content { media, schema }))
    }

    /// Answers 204 without a body.
    pub(super) fn says_nothing(self) -> Self {
        self.answer(204, None)
    }

    /// Becomes a WebSocket.
    pub(super) fn upgrades(self) -> Self {
        self.answer(101, None)
    }

    pub(super) fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    fn answer(mut self, code: u16, content: Option<Content>) -> Self {
        self.answers.push((code, content));
        self
    }
}
