//! `${NAME}` in values: replaced from the environment, so that secrets need not stand in the file.
//!
//! The environment is a function, so that tests are pure. The replaced scalar remembers how it was
//! written: whatever is said about it later shows `${NAME}`, never the value. `$${` stands for a
//! literal `${`. Keys are left alone: they are names, and names appear in logs.
//!
//! A text that comes from outside ([`Config::check`](super::Config::check)) is not given the environment: whoever
//! sends it could learn values by what is said of them. There names are checked for their form, and the value
//! counts as one that nobody knows.

use std::cell::Cell;

use super::{
    errors::{Report, join},
    tree::{Node, Scalar, Value},
};

/// What variables stand for.
#[derive(Clone, Copy)]
pub enum Variables<'a> {
    Known(&'a dyn Fn(&str) -> Option<String>),
    /// Nothing is looked up.
    Withheld,
}

/// Replaces every `${NAME}` below `node`; what cannot be replaced becomes [`Value::Unknown`].
pub fn substitute(node: &mut Node, path: &str, variables: Variables, report: &Report) {
    match &mut node.value {
        Value::Null | Value::Unknown => {}
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{path}[{index}]"), variables, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                substitute(&mut entry.node, &join(path, &entry.key), variables, report);
            }
        }
        Value::Scalar(scalar) => match expanded(&scalar.text, variables) {
            Ok(Expanded::AsItStands) => {}
            Ok(Expanded::Withheld) => {
                report.warning(
                    path,
                    node.line,
                    "the environment is not looked at here: the value is not checked",
                );
                node.value = Value::Unknown;
            }
            Ok(Expanded::To(text)) => {
                let source = Some(std::mem::take(&mut scalar.text));
                *scalar = Scalar { text, plain: scalar.plain, source };
            }
            Err(message) => {
                report.error(path, node.line, message);
                node.value = Value::Unknown;
            }
        },
    }
}

enum Expanded {
    /// There is nothing to replace.
    AsItStands,
    To(String),
    /// It depends on variables that are withheld.
    Withheld,
}

fn expanded(text: &str, variables: Variables) -> Result<Expanded, String> {
    let asked = Cell::new(false);
    let nothing = |_: &str| {
        asked.set(true);
        Some(String::new())
    };
    let found = match variables {
        Variables::Known(env) => expand(text, env)?,
        Variables::Withheld => expand(text, &nothing)?,
    };
    Ok(match found {
        None => Expanded::AsItStands,
        Some(_) if asked.get() => Expanded::Withheld,
        Some(text) => Expanded::To(text),
    })
}

/// `None`: there is nothing to replace.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            return Err(
                "\"${\" without a variable's name and \"}\"; write ${NAME}, or $${ for a literal ${".into()
            );
        };
        let Some(value) = env(name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "USER" => Some("me".into()),
            "NESTED" => Some("${USER}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn names_are_replaced_once_and_only_where_set() {
        let cases = [
            ("plain $USER {USER} $", Ok(None)),
            ("${USER}", Ok(Some("me"))),
            ("a${USER}b${USER}c", Ok(Some("amebmec"))),
            ("${EMPTY}", Ok(Some(""))),
            ("${NESTED}", Ok(Some("${USER}"))),
            ("$${USER}", Ok(Some("${USER}"))),
            ("${UNSET}", Err("UNSET is not set")),
            ("${", Err("without a variable's name")),
            ("${}", Err("without a variable's name")),
            ("${a b}", Err("without a variable's name")),
            ("${USER", Err("without a variable's name")),
        ];
        for (text, expected) in cases {
            match (expand(text, &env), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn debug_output_shows_the_name_and_not_the_value() {
        let scalar = Scalar { text: "hunter2".into(), plain: true, source: Some("${PASSWORD}".into()) };
        assert_eq!(format!("{scalar:?}"), "\"${PASSWORD}\"");
    }
}
