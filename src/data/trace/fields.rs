//! Typed fields of a JSON object, each with the reason where it does not hold.

use super::error::FieldError;
use crate::problem::one_line;
use serde_json::{Map, Value};

/// The largest whole number that a double holds exactly with all below it.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Characters of a value that a message shows.
const SHOWN: usize = 40;

/// One object of a trace.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

fn kind(field: &str, value: &Value, want: &'static str) -> FieldError {
    // why: a large array or object is not written out to show its first characters.
    let value = match value {
        Value::Array(a) => format!("an array of {}", a.len()),
        Value::Object(o) => format!("an object of {} keys", o.len()),
        Value::String(s) => format!("\"{}\"", one_line(s, SHOWN)),
        other => other.to_string(),
    };
    FieldError::Kind { field: field.to_owned(), value, want }
}

/// How a number that is not finite reads, once `read` has made the word a string.
fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['-', '+']);
    ["nan", "inf", "infinity"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// A number that an f32 can hold; NaN where the engine printed `nan` or `inf`.
fn number(value: &Value, at: &dyn Fn() -> String) -> Result<f64, FieldError> {
    let x = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) if is_not_finite(s) => Some(f64::NAN),
        _ => None,
    };
    match x {
        None => Err(kind(&at(), value, "a number")),
        Some(x) if x.abs() > f64::from(f32::MAX) => {
            Err(FieldError::TooLarge { field: at(), value: x })
        }
        Some(x) => Ok(x),
    }
}

/// A finite one.
fn finite(value: &Value, at: &dyn Fn() -> String) -> Result<f64, FieldError> {
    let x = number(value, at)?;
    if x.is_finite() { Ok(x) } else { Err(FieldError::NotFinite { field: at() }) }
}

impl Fields<'_> {
    /// The value of a key; `null` is as good as none.
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    /// What was found, or that it is missing.
    pub fn need<T>(&self, field: &str, found: Option<T>) -> Result<T, FieldError> {
        found.ok_or_else(|| FieldError::Missing { field: field.to_owned() })
    }

    /// A text that may be absent.
    pub fn text(&self, field: &str) -> Result<Option<String>, FieldError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.clone())),
            Some(other) => Err(kind(field, other, "a string")),
        }
    }

    /// One of some words, that may be absent.
    pub fn word<T: Copy>(
        &self,
        field: &str,
        words: &[(&str, T)],
        want: &'static str,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, t)| Some(*t)).ok_or_else(|| kind(field, value, want))
    }

    /// A whole number from 0 that may be absent.
    pub fn whole(&self, field: &str) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            let x = value.as_f64()?;
            ((0.0..=LARGEST_WHOLE).contains(&x) && x.trunc() == x).then_some(x as u64)
        });
        whole.map(Some).ok_or_else(|| kind(field, value, "a whole number, at least 0"))
    }

    /// A whole number from 0.
    pub fn need_whole(&self, field: &str) -> Result<u64, FieldError> {
        self.need(field, self.whole(field)?)
    }

    /// A finite number that may be absent.
    pub fn number(&self, field: &str) -> Result<Option<f64>, FieldError> {
        self.get(field).map(|value| finite(value, &|| field.to_owned())).transpose()
    }

    /// A mean or largest error, at least 0, that may be absent. One that was printed as not finite
    /// says no more than the samples beside it do: it counts as absent.
    pub fn error(&self, field: &'static str) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let x = number(value, &|| field.to_owned())?;
        if x < 0.0 {
            return Err(FieldError::TooSmall { field, value: x, least: 0 });
        }
        Ok(x.is_finite().then_some(x))
    }

    /// A finite distance, at least 0.
    pub fn distance(&self, field: &'static str) -> Result<f64, FieldError> {
        let value = self.need(field, self.get(field))?;
        finite(value, &|| field.to_owned())?;
        self.need(field, self.error(field)?)
    }

    /// An array of `len` numbers that may be absent. They may be not finite: a kernel can write
    /// such, and that tells something about it.
    pub fn outputs(
        &self,
        field: &str,
        by: &'static str,
        len: u64,
    ) -> Result<Option<Vec<f64>>, FieldError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let numbers = array(&|| field.to_owned(), value, by, len)?.iter().enumerate();
        numbers
            .map(|(i, x)| number(x, &|| format!("{field}[{i}]")))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of `len` finite numbers that may be absent.
    pub fn numbers(
        &self,
        field: &str,
        by: &'static str,
        len: u64,
    ) -> Result<Option<Vec<f64>>, FieldError> {
        let numbers = self.outputs(field, by, len)?;
        match numbers.iter().flatten().position(|x| !x.is_finite()) {
            Some(i) => Err(FieldError::NotFinite { field: format!("{field}[{i}]") }),
            None => Ok(numbers),
        }
    }

    /// An array of `rows` arrays of `columns` finite numbers each, row after row.
    pub fn matrix(
        &self,
        field: &str,
        (by_rows, rows): (&'static str, u64),
        (by_columns, columns): (&'static str, u64),
    ) -> Result<Vec<f64>, FieldError> {
        let value = self.need(field, self.get(field))?;
        let mut all = Vec::new();
        for (n, row) in array(&|| field.to_owned(), value, by_rows, rows)?.iter().enumerate() {
            let row = array(&|| format!("{field}[{n}]"), row, by_columns, columns)?;
            for (d, x) in row.iter().enumerate() {
                all.push(finite(x, &|| format!("{field}[{n}][{d}]"))?);
            }
        }
        Ok(all)
    }

    /// An object inside this one that may be absent.
    pub fn object(&self, field: &str) -> Result<Option<Fields<'_>>, FieldError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(o)) => Ok(Some(Fields(o))),
            Some(other) => Err(kind(field, other, "an object")),
        }
    }
}

fn array<'a>(
    at: &dyn Fn() -> String,
    value: &'a Value,
    by: &'static str,
    want: u64,
) -> Result<&'a [Value], FieldError> {
    let Value::Array(array) = value else { return Err(kind(&at(), value, "an array")) };
    let got = array.len();
    if got as u64 != want {
        return Err(FieldError::Length { field: at(), got, by, want });
    }
    Ok(array)
}
