//! Variables of the environment in strings of the file: `${NAME}`, `${NAME:-default}`, and
//! `$$` for a dollar where one of these would be read. Any other dollar is one.
//!
//! Invariant: what a variable holds is never looked into again, and never told in a problem.

use super::errors::Wrong;

/// Puts in what the environment has.
pub(super) fn substitute(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, Wrong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let behind = &rest[dollar + 1..];
        match behind.chars().next() {
            Some('$') => {
                out.push('$');
                rest = &behind[1..];
            }
            Some('{') => {
                let Some((inside, after)) = behind[1..].split_once('}') else {
                    let what = "`${` without its `}`";
                    return Err(Wrong::new(what, "write ${NAME}, or $${ for the characters"));
                };
                out.push_str(&value_of(inside, &environment)?);
                rest = after;
            }
            _ => {
                out.push('$');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of(inside: &str, environment: impl Fn(&str) -> Option<String>) -> Result<String, Wrong> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        let what = format!("`{name}` is not the name of a variable");
        return Err(Wrong::new(
            what,
            "write ${NAME} or ${NAME:-default}, or $${ for the characters",
        ));
    }
    match (environment(name), default) {
        // As a shell has it: what is set and empty takes the default, too.
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Wrong::new(
            format!("the environment has no `{name}`"),
            format!("set it where the proxy is started, or write ${{{name}:-default}}"),
        )),
    }
}

/// The inverse: what has to be written to have this.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        out.push(char);
        if char == '$' && matches!(chars.peek(), Some('$' | '{')) {
            out.push('$');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLARS" => Some("${A}$$".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_put_in_and_dollars_stay() {
        for (text, wanted) in [
            ("plain", "plain"),
            ("${A}", "a"),
            ("x${A}y${A}z", "xayaz"),
            ("${NONE:-b}", "b"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-b}", "b"),
            ("${A:-b}", "a"),
            ("${NONE:-http://x:80/}", "http://x:80/"),
            // What is put in is not read again.
            ("${DOLLARS}", "${A}$$"),
            ("$", "$"),
            ("a$", "a$"),
            ("$A", "$A"),
            ("^/x$", "^/x$"),
            ("$${A}", "${A}"),
            ("$$", "$"),
            ("$$$$", "$$"),
            ("$$$x", "$$x"),
            ("\u{e9}${A}\u{e9}", "\u{e9}a\u{e9}"),
        ] {
            assert_eq!(substitute(text, environment).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_cure() {
        for (text, wanted) in [
            ("${NONE}", "the environment has no `NONE`; set it"),
            ("${A", "`${` without its `}`"),
            ("${}", "`` is not the name"),
            ("${1A}", "`1A` is not the name"),
            ("${A-b}", "`A-b` is not the name"),
            ("${A B:-c}", "`A B` is not the name"),
        ] {
            let wrong = substitute(text, environment).unwrap_err().to_string();
            assert!(wrong.starts_with(wanted), "{text}: {wrong}");
        }
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", "$", "$$", "$$$", "${A}", "a$b", "$${A}", "x$", "$$$$$${", "{$}"] {
            assert_eq!(substitute(&escape(text), environment).as_deref(), Ok(text), "{text}");
        }
    }
}
