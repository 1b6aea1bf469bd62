//! Function calls, also those with a syntax of their own; everything else is refused here.

use sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr, ExtractSyntax, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, ObjectNamePart, Spanned, TrimWhereField,
};
use sqlparser::tokenizer::Span;

use super::names::fold;
use super::operators::guard;
use super::{Checked, Converter};
use crate::error::{ErrorKind, Refusal};
use crate::functions::{self, Refused};
use crate::node::Node;
use crate::{literals, suggest};

impl Converter<'_> {
    pub(super) fn call(&mut self, expr: &Expr, below: u32) -> Checked<Node> {
        match expr {
            Expr::Function(function) => self.function(function, below),
            Expr::Ceil {
                expr: of,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => self.build("ceil", &[of], below),
            Expr::Floor {
                expr: of,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => self.build("floor", &[of], below),
            Expr::Position { expr: what, r#in } => self.build("position", &[r#in, what], below),
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => self.build("timezone", &[time_zone, timestamp], below),
            Expr::Substring {
                expr: of,
                substring_from,
                substring_for,
                shorthand,
                ..
            } => {
                let mut args = vec![self.node(of, below)?];
                match (substring_from, substring_for) {
                    (Some(from), None) => args.push(self.node(from, below)?),
                    (Some(from), Some(count)) => {
                        args.push(self.node(from, below)?);
                        args.push(self.node(count, below)?);
                    }
                    (None, Some(count)) => {
                        args.push(Node::Number("1".to_owned()));
                        args.push(self.node(count, below)?);
                    }
                    (None, None) => {}
                }
                let name = if *shorthand { "substr" } else { "substring" };
                finish(name, args, expr.span())
            }
            Expr::Trim {
                trim_where,
                trim_what,
                expr: of,
                trim_characters,
            } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let mut args: Vec<&Expr> = vec![of];
                args.extend(trim_what.as_deref());
                args.extend(trim_characters.iter().flatten());
                self.build(name, &args, below)
            }
            Expr::Extract {
                field,
                syntax: ExtractSyntax::From,
                expr: of,
            } => match literals::extract_field(field) {
                Some(field) => Ok(Node::Extract {
                    field,
                    of: self.boxed(of, below)?,
                }),
                None => Err(Refusal::new(
                    ErrorKind::NotAllowed,
                    of.span(),
                    format!("extract has no field {field}"),
                )
                .help("write a field like year, month, day, dow, hour, minute or epoch")),
            },
            other => Err(refused(other)),
        }
    }

    fn build(&mut self, name: &'static str, args: &[&Expr], below: u32) -> Checked<Node> {
        let span = args.first().map_or_else(Span::empty, |e| e.span());
        let mut nodes = Vec::with_capacity(args.len());
        for arg in args {
            nodes.push(self.node(arg, below)?);
        }
        finish(name, nodes, span)
    }

    fn function(&mut self, function: &Function, below: u32) -> Checked<Node> {
        let span = function.name.span();
        let refuse = |message: String| Refusal::new(ErrorKind::NotAllowed, span, message);
        let path: Option<Vec<String>> = function
            .name
            .0
            .iter()
            .map(|part| match part {
                ObjectNamePart::Identifier(ident) => Some(fold(ident)),
                ObjectNamePart::Function(_) => None,
            })
            .collect();
        let name = match path.as_deref() {
            Some([name]) => name,
            Some([schema, name]) if schema == "pg_catalog" && !functions::is_syntax(name) => name,
            _ => {
                let message = format!("the function {} is not allowed in a rule", function.name);
                return Err(refuse(message).help(list_of_functions()));
            }
        };
        if function.over.is_some()
            || function.filter.is_some()
            || !function.within_group.is_empty()
            || function.null_treatment.is_some()
        {
            let message = format!("{name} is used over several rows; a rule sees one row");
            return Err(refuse(message).help("remove over, filter and within group"));
        }
        let Some((name, least, most)) = functions::find(name) else {
            return Err(unknown(name, span));
        };
        if function.uses_odbc_syntax {
            let message = "a call in braces is not PostgreSQL's".to_owned();
            return Err(refuse(message).help(format!("write {name}(...)")));
        }
        let list = match (&function.parameters, &function.args) {
            (FunctionArguments::None, FunctionArguments::List(list))
                if list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
            {
                list
            }
            _ => {
                let message = format!("{name} is not called with a plain list of arguments");
                return Err(refuse(message).help(format!("write it like {name}(a, b)")));
            }
        };
        if name == "position" && function.name.0.len() == 1 {
            let message = "position takes its arguments with `in`".to_owned();
            return Err(refuse(message).help("write position(part in whole)"));
        }
        let given = list.args.len();
        if given < least || given > most {
            let wanted = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let message = format!("{name} has {given} arguments");
            return Err(refuse(message).help(format!("give it {wanted}")));
        }
        let mut args = Vec::with_capacity(given);
        for arg in &list.args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => {
                    args.push(self.node(arg, below)?);
                }
                _ => {
                    let message = format!("{name} has an argument that is not a plain value");
                    return Err(refuse(message).help("name the columns one by one"));
                }
            }
        }
        finish(name, args, span)
    }
}

/// The call itself, with its divisor guarded if it has one.
fn finish(name: &'static str, mut args: Vec<Node>, span: Span) -> Checked<Node> {
    let bounds = functions::find(name).map_or(0..=0, |(_, least, most)| least..=most);
    if !bounds.contains(&args.len()) {
        let message = format!("{name} has {} arguments", args.len());
        return Err(Refusal::new(ErrorKind::NotAllowed, span, message)
            .help("give it as many as PostgreSQL's manual says"));
    }
    if name == "mod"
        && let Some(divisor) = args.pop()
    {
        args.push(guard(divisor, span)?);
    }
    Ok(Node::Call { name, args })
}

fn unknown(name: &str, span: Span) -> Box<Refusal> {
    let refuse = |message: String| Refusal::new(ErrorKind::NotAllowed, span, message);
    match functions::refused(name) {
        Refused::OverManyRows => refuse(format!("{name} works on many rows; a rule sees one row"))
            .help("use only the columns of the row itself"),
        Refused::NotImmutable => refuse(format!(
            "{name} does not depend on the row alone, so a rule cannot use it"
        ))
        .help("let the writer put the value into a column, and compare columns"),
        Refused::Unlisted => {
            let near: Vec<String> = suggest::nearest(name, functions::allowed_functions())
                .into_iter()
                .map(str::to_owned)
                .collect();
            let help = match suggest::question(&near) {
                Some(question) => format!("{question} {}", list_of_functions()),
                None => list_of_functions(),
            };
            refuse(format!("the function {name} is not allowed in a rule")).help(help)
        }
    }
}

fn list_of_functions() -> String {
    let names: Vec<&str> = functions::allowed_functions().collect();
    format!("a rule may call: {}, extract, trim, cast", names.join(", "))
}

/// For what has no place in a rule at all.
fn refused(expr: &Expr) -> Box<Refusal> {
    let (message, help) = match expr {
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => (
            "a rule sees one row, so it has no subquery",
            "use only the columns of the feed's own row",
        ),
        Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
            ("`*` is not a value", "name the columns one by one")
        }
        Expr::Tuple(_) => (
            "a rule does not compare lists of values in parentheses",
            "compare them one by one, joined with and / or",
        ),
        Expr::Collate { .. } => (
            "collate is not allowed in a rule",
            "compare without it, or give the column the collation",
        ),
        Expr::Like { .. } | Expr::ILike { .. } => (
            "like any is not allowed in a rule",
            "join several like conditions with or, or use ~ with |",
        ),
        _ => (
            "this is not allowed in a rule",
            "use columns, constants, operators, case, casts and the listed functions",
        ),
    };
    Refusal::new(ErrorKind::NotAllowed, expr.span(), message).help(help)
}
