//! What is changed in an expression before it is evaluated, and what is refused.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, ListExpr, LiteralValue, MapEntryExpr, MapExpr, operators,
};

use super::{guard, json_patch, optional};

/// Asked before every step of a loop whether there is budget left.
pub(super) const STEP: &str = "__step__";
/// Levels of the parsed expression; the evaluator descends into each.
const LEVELS_MAX: usize = 300;

/// How deep brackets are nested, whatever stands in strings.
pub(super) fn brackets(source: &str) -> usize {
    let (mut level, mut most) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                level += 1;
                most = most.max(level);
            }
            b')' | b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Makes loops ask for budget, object constructors maps, and escaped names of fields what they
/// stand for.
pub(super) fn rewrite(code: &mut IdedExpr, level: usize) -> Result<(), String> {
    if level > LEVELS_MAX {
        return Err("the expression is nested too deeply".to_owned());
    }
    let below = level + 1;
    match &mut code.expr {
        Expr::Unspecified => return Err("the expression has an empty part".to_owned()),
        Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            optional::rewrite(call);
            json_patch::rewrite(call);
            if let Some(target) = &mut call.target {
                rewrite(target, below)?;
            }
            for argument in &mut call.args {
                rewrite(argument, below)?;
            }
        }
        Expr::Select(select) => {
            select.field = unescape(&select.field);
            rewrite(&mut select.operand, below)?;
        }
        Expr::List(ListExpr { elements, .. }) => {
            for element in elements {
                rewrite(element, below)?;
            }
        }
        Expr::Map(MapExpr { entries }) => {
            for entry in entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    rewrite(&mut entry.key, below)?;
                    rewrite(&mut entry.value, below)?;
                }
            }
        }
        Expr::Struct(made) => {
            let mut entries = std::mem::take(&mut made.entries);
            for entry in &mut entries {
                if let EntryExpr::StructField(field) = &mut entry.expr {
                    rewrite(&mut field.value, below)?;
                    let key = LiteralValue::String(unescape(&field.field).as_str().into());
                    entry.expr = EntryExpr::MapEntry(MapEntryExpr {
                        key: IdedExpr {
                            id: entry.id,
                            expr: Expr::Literal(key),
                        },
                        value: std::mem::take(&mut field.value),
                        optional: field.optional,
                    });
                }
            }
            code.expr = Expr::Map(MapExpr { entries });
        }
        Expr::Comprehension(each) => {
            if each.iter_var2.is_some() {
                return Err("loops over two variables are not built yet".to_owned());
            }
            for part in [
                &mut each.iter_range,
                &mut each.accu_init,
                &mut each.loop_cond,
                &mut each.loop_step,
                &mut each.result,
            ] {
                rewrite(part, below)?;
            }
            let id = each.loop_cond.id;
            let step = Expr::Call(CallExpr {
                func_name: STEP.to_owned(),
                target: None,
                args: Vec::new(),
            });
            let condition = std::mem::take(&mut each.loop_cond);
            each.loop_cond = IdedExpr {
                id,
                expr: Expr::Call(CallExpr {
                    func_name: operators::LOGICAL_AND.to_owned(),
                    target: None,
                    args: vec![IdedExpr { id, expr: step }, condition],
                }),
            };
        }
    }
    guard::weigh(code);
    Ok(())
}

/// Names that are no identifiers of CEL, as Kubernetes lets expressions write them.
pub(super) fn unescape(field: &str) -> String {
    const WORDS: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if !field.contains("__") {
        return field.to_owned();
    }
    let inner = field
        .strip_prefix("__")
        .and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|word| WORDS.contains(word)) {
        return word.to_owned();
    }
    field
        .replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
}
