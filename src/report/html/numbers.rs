//! Numbers as they are read.

use crate::report::table::ratio;
use serde_json::Value;

/// A whole number, its thousands apart: `204,000`.
pub fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 case`, `204,000 cases`.
pub fn count(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", whole(n), if n == 1 { "" } else { "s" })
}

/// A count under a key; 0 where it is not there.
pub fn counted(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or(0)
}

/// A count under a key in a cell; `-` where it is not there.
pub fn cell(object: &Value, key: &str) -> String {
    object[key].as_u64().map_or("-".to_owned(), whole)
}

/// An error over its bound, as the terminal has it: null beside `nonfinite` is `inf`.
pub fn over_bound(object: &Value, key: &str) -> String {
    match object[key].as_f64() {
        Some(x) => ratio(x, true),
        None if object["nonfinite"] == true => "inf".to_owned(),
        None => "-".to_owned(),
    }
}

/// An error of the outputs, in powers of ten.
pub fn error(object: &Value, key: &str) -> String {
    match object[key].as_f64() {
        Some(x) => format!("{x:.3e}"),
        None if object["nonfinite"] == true => "not finite".to_owned(),
        None => "-".to_owned(),
    }
}

/// The first names of a list, and how many more there are.
pub fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
