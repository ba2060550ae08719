//! `jsonpatch.escapeKey`: a name as it stands in the path of an operation.

use std::sync::Arc;

use kube_cel::cel::Context;
use kube_cel::cel::common::ast::{CallExpr, Expr};

/// What the function becomes: it is of a family and not of a value.
const ESCAPE: &str = "__escape_key__";

pub(super) fn rewrite(call: &mut CallExpr) {
    let family = call.target.as_ref().map(|target| &target.expr);
    if call.func_name == "escapeKey" && family == Some(&Expr::Ident("jsonpatch".to_owned())) {
        call.func_name = ESCAPE.to_owned();
        call.target = None;
    }
}

pub(super) fn register(context: &mut Context<'static>) {
    context.add_function(ESCAPE, |key: Arc<String>| -> String {
        key.replace('~', "~0").replace('/', "~1")
    });
}
