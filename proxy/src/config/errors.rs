//! What is wrong with a configuration, all of it at once, each with a cure.
//!
//! Invariant: a problem names its place (`file:line:column` or the flag), what is wrong
//! and what would be right; it never repeats a password. Comes before anything is bound
//! or started; nothing here is reached by traffic.

use std::fmt;

/// Every problem that was found, in the order of the file.
#[derive(Debug, Default)]
pub struct Errors(Vec<Problem>);

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong there and what would be right.
    pub wrong: Wrong,
}

/// What is wrong with one value, whatever brought it (a file or a flag).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    what: String,
    cure: String,
    /// Nothing else is worth saying of its place: what stands there is not what was meant.
    alone: bool,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, both counted from 1; columns in characters.
    File {
        /// As it was given on the command line.
        name: String,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A file as such, when it cannot be read.
    Whole(String),
    /// A flag or an environment variable.
    Flag(String),
}

/// A value and where it came from, for problems that show up later.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

impl Errors {
    pub(crate) fn add(&mut self, place: &Place, wrong: Wrong) {
        self.0.push(Problem { place: place.clone(), wrong });
    }

    pub(crate) fn one(place: Place, wrong: Wrong) -> Self {
        Self(vec![Problem { place, wrong }])
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// `Err` with all problems in the order of the file, if there are any.
    pub(crate) fn into_result(mut self) -> Result<(), Self> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|one, other| order(&one.place).cmp(&order(&other.place)));
        let alone = self.0.iter().filter(|problem| problem.wrong.alone);
        let alone: Vec<Place> = alone.map(|problem| problem.place.clone()).collect();
        self.0.retain(|problem| problem.wrong.alone || !alone.contains(&problem.place));
        // What is wrong in `[limits]` shows up again in each listener that adds to them.
        self.0.dedup();
        Err(self)
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

fn order(place: &Place) -> (&str, usize, usize) {
    match place {
        Place::File { name, line, column } => (name, *line, *column),
        Place::Whole(_) | Place::Flag(_) => ("", 0, 0),
    }
}

impl Wrong {
    /// `what` is wrong; `cure` says what would be right.
    pub(crate) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), alone: false }
    }

    /// What is wrong.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The only problem that is told of its place.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// The same, in a line of the file that a value names.
    pub(crate) fn in_line(self, line: usize) -> Self {
        Self { what: format!("line {line}: {}", self.what), ..self }
    }
}

impl<T> Placed<T> {
    pub(crate) fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    pub(crate) fn flag(value: T, flag: &str) -> Self {
        Self { value, place: Place::Flag(flag.to_owned()) }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.wrong)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cure.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Whole(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

impl std::error::Error for Errors {}
impl std::error::Error for Wrong {}
