//! Text with `{…}` in it: kernel names and preprocessor definitions.
//!
//! `paged_decode<{kv}, {head_dim * 2}>` becomes `paged_decode<__half, 256>`: `{q} {kv} {out}` stand
//! for C++ type names, anything else in braces is an expression. `{{` and `}}` are plain braces.

use super::expr::{Expr, ExprError, SHOWN_TEXT, Value};
use crate::problem::{DType, DTypes, one_line};
use std::fmt;

/// Which of a case's types a `{…}` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Q,
    Kv,
    Out,
}

impl Slot {
    fn from_name(name: &str) -> Option<Slot> {
        match name {
            "q" => Some(Slot::Q),
            "kv" => Some(Slot::Kv),
            "out" => Some(Slot::Out),
            _ => None,
        }
    }

    fn of(self, dtypes: DTypes) -> DType {
        match self {
            Slot::Q => dtypes.q,
            Slot::Kv => dtypes.kv,
            Slot::Out => dtypes.out,
        }
    }
}

/// The names that stand for types in a [`Template`], so that no tunable can have them.
pub const TYPE_NAMES: [&str; 3] = ["q", "kv", "out"];

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Type(Slot),
    Expr(Expr),
}

/// What is wrong with a [`Template`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A `{` without its `}`, or the reverse.
    #[error(
        "`{}`: the `{brace}` at column {column} has no partner; write `{brace}{brace}` for a plain brace",
        one_line(text, SHOWN_TEXT)
    )]
    Brace {
        /// The whole text.
        text: String,
        /// The brace.
        brace: char,
        /// Its column, in characters from 1.
        column: usize,
    },
    /// A text that starts with `=` and is not one expression.
    #[error(
        "`{}`: a text that starts with `=` is one expression; write `={{head_dim * 2}}`",
        one_line(text, SHOWN_TEXT)
    )]
    Equals {
        /// The whole text.
        text: String,
    },
    /// An expression in braces.
    #[error("in `{}`: {source}", one_line(text, SHOWN_TEXT))]
    Expr {
        /// The whole text.
        text: String,
        /// What is wrong.
        source: Box<ExprError>,
    },
}

/// A text with places for values and type names.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

impl Template {
    /// Reads a text with `{…}`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let chars: Vec<char> = text.chars().collect();
        let brace = |brace, at: usize| TemplateError::Brace {
            text: text.to_owned(),
            brace,
            column: at + 1,
        };
        let (mut parts, mut plain, mut i) = (Vec::new(), String::new(), 0);
        while i < chars.len() {
            match (chars[i], chars.get(i + 1)) {
                ('{', Some('{')) | ('}', Some('}')) => {
                    plain.push(chars[i]);
                    i += 2;
                }
                ('}', _) => return Err(brace('}', i)),
                ('{', _) => {
                    let length = chars[i + 1..].iter().position(|c| matches!(c, '{' | '}'));
                    let end = length.map(|n| i + 1 + n).filter(|end| chars[*end] == '}');
                    let end = end.ok_or_else(|| brace('{', i))?;
                    let inside: String = chars[i + 1..end].iter().collect();
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(match Slot::from_name(inside.trim()) {
                        Some(slot) => Part::Type(slot),
                        None => Part::Expr(Expr::parse(&inside).map_err(|source| {
                            TemplateError::Expr { text: text.to_owned(), source: Box::new(source) }
                        })?),
                    });
                    i = end + 1;
                }
                (c, _) => {
                    plain.push(c);
                    i += 1;
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { text: text.to_owned(), parts })
    }

    /// Reads the value of a definition: as [`Template::parse`], and `={EXPR}` is one expression.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse_define(text: &str) -> Result<Template, TemplateError> {
        let Some(expression) = text.strip_prefix('=') else {
            return Template::parse(text);
        };
        match Template::parse(expression)?.parts {
            parts if matches!(parts[..], [Part::Expr(_)]) => {
                Ok(Template { text: text.to_owned(), parts })
            }
            _ => Err(TemplateError::Equals { text: text.to_owned() }),
        }
    }

    /// A text without places.
    pub fn literal(text: impl Into<String>) -> Template {
        let text = text.into();
        Template { parts: vec![Part::Text(text.clone())], text }
    }

    /// The expressions in it.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|p| if let Part::Expr(e) = p { Some(e) } else { None })
    }

    /// The text with every place filled: types by [`DType::cpp_name`], integers in decimal, floats
    /// by the shortest text that reads back.
    ///
    /// # Errors
    /// [`ExprError`] of the first expression without a value.
    pub fn render(
        &self,
        dtypes: DTypes,
        env: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<String, ExprError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Type(slot) => text.push_str(slot.of(dtypes).cpp_name()),
                Part::Expr(expr) => text.push_str(&expr.eval(env)?.to_string()),
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: Result<Template, TemplateError>) -> String {
        let dtypes = DTypes { q: DType::F32, kv: DType::F16, out: DType::BF16 };
        let env = |name: &str| (name == "d").then_some(Value::Int(64));
        template.unwrap().render(dtypes, &env).unwrap()
    }

    #[test]
    fn places_are_filled() {
        let entry = Template::parse("ns::k<{q}, { kv }, {out}, {d / 3}, true>");
        assert_eq!(render(entry), "ns::k<float, __half, __hip_bfloat16, 21, true>");
        assert_eq!(render(Template::parse("{d * 0.5}f")), "32.0f");
        assert_eq!(render(Template::parse("do {{ {d}; }} while (0)")), "do { 64; } while (0)");
        assert_eq!(render(Template::parse("")), "");
        assert_eq!(render(Template::parse_define("={d * 2}")), "128");
        assert_eq!(render(Template::parse_define("{kv}")), "__half");
        assert_eq!(render(Ok(Template::literal("{"))), "{");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, phrase) in [
            ("k<{d>", "the `{` at column 3 has no partner"),
            ("k<d}", "the `}` at column 4 has no partner"),
            ("k<{a{b}}>", "the `{` at column 3 has no partner"),
            ("k<{}>", "it is empty"),
            ("k<{d +}>", "in `k<{d +}>`: expression `d +`, column 4"),
        ] {
            let message = Template::parse(text).unwrap_err().to_string();
            assert!(message.contains(phrase), "{text}: {message}");
        }
        for text in ["=d", "={d} + 1", "=", "={kv}"] {
            let message = Template::parse_define(text).unwrap_err().to_string();
            assert!(message.contains("write `={head_dim * 2}`"), "{text}: {message}");
        }
    }
}
