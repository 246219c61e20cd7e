//! The files of the workspace, for the commands that read them (tidy, trace).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A text file of the workspace.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All files below `root` whose name ends as one of `extensions`, in order, without what
/// is built or hidden. `.ci` is hidden but ours.
pub(crate) fn read(root: &Path, extensions: &[&str]) -> io::Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let wanted = extensions.iter().any(|extension| relative.ends_with(extension));
        if !wanted {
            continue;
        }
        // What is not text has nothing to say here.
        if let Ok(text) = fs::read_to_string(&path) {
            sources.push(Source { path: relative, text });
        }
    }
    Ok(sources)
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
            if !skipped {
                collect(&entry.path(), paths)?;
            }
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// The code of a Rust file line by line: comments and the contents of literals blanked,
/// so that words in prose and messages are not taken for code.
///
/// Knows line and block comments, strings (raw ones too), and tells lifetimes from
/// characters; that is all the checks need.
pub(crate) fn code_lines(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let skipped = if rest.starts_with(&['/', '/']) {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, at.checked_sub(1).map(|i| chars[i])) {
            length
        } else if rest[0] == '"' {
            quoted(rest, '"')
        } else if rest[0] == '\'' && is_char(rest) {
            quoted(rest, '\'')
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        // Lines stay lines.
        out.extend(rest[..skipped].iter().filter(|c| **c == '\n'));
        out.push(' ');
        at += skipped;
    }
    out.lines().map(str::to_owned).collect()
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of a raw string that begins here, after `before`.
fn raw_string(rest: &[char], before: Option<char>) -> Option<usize> {
    if rest[0] != 'r' || before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_') {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = 2 + hashes;
    let length = rest[body..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| body + length + end.len()))
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn is_char(rest: &[char]) -> bool {
    rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "let a = \"unsafe \\\" x\"; // unsafe\nlet b = 'u'; /* un\nsafe */ let c: &'a u8;\n\
                    let d = r#\"todo!(\"#; let e = br\"x\"; unsafe {}\n";
        let code = code_lines(text);
        assert_eq!(code.len(), 4, "{code:?}");
        assert!(!code[..3].concat().contains("safe"), "{code:?}");
        assert!(code[2].contains("&'a u8"), "{code:?}");
        assert!(!code[3].contains("todo"), "{code:?}");
        assert!(code[3].contains("unsafe {}"), "{code:?}");
    }
}
