//! Typed reading of a TOML file, where every mistake names the file, the line and the key.

use super::expr::{Expr, ExprError};
use super::later;
use super::template::TemplateError;
use crate::problem::{clip, did_you_mean, nearest, one_line};
use std::fmt;
use toml::de::{DeTable, DeValue};

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestProblem {
    /// A file that cannot be read.
    #[error("cannot be read: {0}; give the path of a kernel's manifest (a .toml file)")]
    Io(String),
    /// More than a manifest can be.
    #[error("it has more than {limit} bytes; give a kernel's manifest, which has a few thousand")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// A key that no manifest has.
    #[error("unknown key `{key}`{} (known here: {known})", did_you_mean(nearest))]
    UnknownKey {
        /// The key with the path to it.
        key: String,
        /// A known one that is close to it.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
    /// A key of the format that this program does not drive yet.
    #[error(
        "`{key}` is not driven yet: this program would not run what it says; leave it out, and with it what it says"
    )]
    NotDriven {
        /// The key with its table.
        key: String,
    },
    /// A key that must be there.
    #[error("`{key}` is missing; write {mend}")]
    Missing {
        /// The key with the path to it.
        key: String,
        /// A line that mends it.
        mend: String,
    },
    /// A value of the wrong type.
    #[error("`{key}` must be {want}, got {got}")]
    Type {
        /// The key with the path to it.
        key: String,
        /// What it must be, with an example.
        want: String,
        /// The type that it has.
        got: String,
    },
    /// A value that cannot be.
    #[error("`{key}` = {value}: {why}")]
    Value {
        /// The key with the path to it.
        key: String,
        /// The value as written.
        value: String,
        /// The limit, and what to write.
        why: String,
    },
    /// An expression, or a text with expressions in it.
    #[error("`{key}`: {source}")]
    Expr {
        /// The key with the path to it.
        key: String,
        /// What is wrong with it.
        source: TextError,
    },
}

/// What is wrong with a text that is evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// An expression.
    #[error(transparent)]
    Expr(#[from] ExprError),
    /// A text with `{…}`.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A mistake in a manifest, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestError {
    /// The file as its user named it.
    pub file: String,
    /// Line, from 1; 0 where the file could not be read at all.
    pub line: usize,
    /// What is wrong.
    pub problem: Box<ManifestProblem>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        // What the parser of TOML says, and names in a file, may have any characters and length.
        write!(f, ": {}", one_line(&self.problem.to_string(), SHOWN_PROBLEM))
    }
}

impl std::error::Error for ManifestError {}

/// Characters of a problem that a message shows: any but those about names as long as a page.
const SHOWN_PROBLEM: usize = 1200;

/// Characters of a value that a message shows; what it must be comes after it.
const SHOWN_VALUE: usize = 120;

type Result<T> = std::result::Result<T, ManifestError>;

/// A file's name and text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Document<'_> {
    /// The line, from 1, of a byte of the text.
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|b| **b == b'\n').count()
    }

    /// A problem at a byte of the text.
    pub fn error(&self, at: usize, problem: ManifestProblem) -> ManifestError {
        let line = self.line(at);
        ManifestError { file: self.file.to_owned(), line, problem: Box::new(problem) }
    }
}

/// A value with its key and place.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub doc: Document<'a>,
    /// The key with the path to it, `launch[0].grid`.
    pub key: String,
    pub at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    fn type_error(&self, want: &str) -> ManifestError {
        let got = match self.value {
            DeValue::String(s) => format!("the string \"{}\"", one_line(s, SHOWN_VALUE)),
            DeValue::Integer(i) => format!("the integer {}", clip(i.as_str())),
            DeValue::Float(x) => format!("the float {}", clip(x.as_str())),
            DeValue::Boolean(b) => format!("{b}"),
            DeValue::Datetime(d) => format!("the date {d}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let problem = ManifestProblem::Type { key: self.key.clone(), want: want.to_owned(), got };
        self.doc.error(self.at, problem)
    }

    /// A value that cannot be, and why.
    pub fn bad(&self, value: impl fmt::Display, why: impl fmt::Display) -> ManifestError {
        let value = one_line(&value.to_string(), SHOWN_VALUE);
        let (key, why) = (self.key.clone(), why.to_string());
        self.doc.error(self.at, ManifestProblem::Value { key, value, why })
    }

    /// An expression that is wrong.
    pub fn bad_text(&self, source: impl Into<TextError>) -> ManifestError {
        let problem = ManifestProblem::Expr { key: self.key.clone(), source: source.into() };
        self.doc.error(self.at, problem)
    }

    /// A string, which `want` describes.
    pub fn string(&self, want: &str) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.type_error(want))
    }

    /// A word that parses to some type.
    pub fn word<T: std::str::FromStr<Err: fmt::Display>>(&self, want: &str) -> Result<T> {
        let text = self.string(want)?;
        text.parse().map_err(|e| self.bad(format_args!("\"{text}\""), e))
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.type_error("true or false"))
    }

    /// An integer if it is one.
    pub fn as_integer(&self) -> Option<Result<i64>> {
        let integer = self.value.as_integer()?;
        let digits = integer.as_str().replace('_', "");
        Some(i64::from_str_radix(&digits, integer.radix()).map_err(|_| {
            self.bad(integer.as_str(), "it does not fit in 64 bits; write a smaller number")
        }))
    }

    /// An integer, which `want` describes.
    pub fn integer(&self, want: &str) -> Result<i64> {
        self.as_integer().unwrap_or_else(|| Err(self.type_error(want)))
    }

    /// An integer of at least `least`.
    pub fn count(&self, least: usize, want: &str) -> Result<usize> {
        let value = self.integer(want)?;
        usize::try_from(value)
            .ok()
            .filter(|n| *n >= least)
            .ok_or_else(|| self.bad(value, format_args!("it must be at least {least}")))
    }

    /// A finite number that is not negative.
    pub fn amount(&self, want: &str) -> Result<f64> {
        let value = match (self.as_integer(), self.value.as_float()) {
            (Some(integer), _) => integer? as f64,
            (_, Some(x)) => {
                x.as_str().replace('_', "").parse().map_err(|_| self.type_error(want))?
            }
            _ => return Err(self.type_error(want)),
        };
        if value.is_finite() && value >= 0.0 {
            Ok(value)
        } else {
            Err(self.bad(value, format_args!("it must be finite and not negative; write {want}")))
        }
    }

    /// An expression: a string, or an integer.
    pub fn expression(&self) -> Result<Expr> {
        if let Some(integer) = self.as_integer() {
            return Ok(Expr::constant(integer?));
        }
        let text = self.string("an integer or an expression, such as \"4 * head_dim\"")?;
        Expr::parse(text).map_err(|e| self.bad_text(e))
    }

    /// The elements of a list, which `want` describes.
    pub fn list(&self, want: &str) -> Result<Vec<Item<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.type_error(want))?;
        let item = |(i, value): (usize, &'a toml::Spanned<DeValue<'a>>)| Item {
            doc: self.doc,
            key: format!("{}[{i}]", self.key),
            at: value.span().start,
            value: value.get_ref(),
        };
        Ok(list.iter().enumerate().map(item).collect())
    }

    /// The elements of a list that must have some.
    pub fn filled_list(&self, want: &str) -> Result<Vec<Item<'a>>> {
        let list = self.list(want)?;
        if list.is_empty() {
            return Err(self.bad("[]", format_args!("the list is empty; write {want}")));
        }
        Ok(list)
    }

    /// The table, which `want` describes.
    pub fn table(&self, want: &str) -> Result<Section<'a>> {
        let table = self.value.as_table().ok_or_else(|| self.type_error(want))?;
        Ok(Section::new(self.doc, &self.key, self.at, table))
    }
}

/// A table with its entries in the file's order.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    doc: Document<'a>,
    path: String,
    at: usize,
    /// Name, the name's place, value.
    entries: Vec<(&'a str, usize, Item<'a>)>,
}

impl<'a> Section<'a> {
    /// The table at `path` (empty for the file itself).
    pub fn new(doc: Document<'a>, path: &str, at: usize, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(name, value)| {
                let key = join(path, name.get_ref());
                let item = Item { doc, key, at: value.span().start, value: value.get_ref() };
                (&**name.get_ref(), name.span().start, item)
            })
            .collect();
        entries.sort_by_key(|(_, at, _)| *at);
        Section { doc, path: path.to_owned(), at, entries }
    }

    /// Checks that every key is among `known`.
    pub fn keys(&self, known: &[&str]) -> Result<()> {
        match self.entries.iter().find(|(name, ..)| !known.contains(name)) {
            None => Ok(()),
            Some((name, at, item)) => {
                let problem = match later::not_driven(&self.path, name) {
                    Some(key) => ManifestProblem::NotDriven { key },
                    None => ManifestProblem::UnknownKey {
                        key: item.key.clone(),
                        nearest: nearest(name, known.iter().copied()),
                        known: known.join(", "),
                    },
                };
                Err(self.doc.error(*at, problem))
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&Item<'a>> {
        self.entries.iter().find(|(n, ..)| *n == name).map(|(.., item)| item)
    }

    /// The value of a key that must be there.
    pub fn require(&self, name: &str, mend: &str) -> Result<&Item<'a>> {
        self.get(name).ok_or_else(|| self.missing(name, mend))
    }

    /// The line, from 1, where the table starts.
    pub fn line(&self) -> usize {
        self.doc.line(self.at)
    }

    /// An error for an absent key.
    pub fn missing(&self, name: &str, mend: &str) -> ManifestError {
        let problem =
            ManifestProblem::Missing { key: join(&self.path, name), mend: mend.to_owned() };
        self.doc.error(self.at, problem)
    }

    /// Names and values in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &Item<'a>)> {
        self.entries.iter().map(|(name, _, item)| (*name, item))
    }
}

fn join(path: &str, name: &str) -> String {
    let name = clip(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}
