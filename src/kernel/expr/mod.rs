//! The expressions of a manifest: `ceil_div(seq_len, 64) * splits`.
//!
//! `+ - * / ( )`, unary minus, `min max ceil_div if_le`, numbers and names, over 64-bit integers and
//! doubles. `if_le(a, b, x, y)` is x where a <= b, else y; both are evaluated. `/` truncates toward zero between integers; a result is a float as soon as an operand
//! is one. Overflow, division by zero and anything that is not finite are errors, never a wrap.
//!
//! An expression is parsed once into postfix steps, so that neither evaluating nor dropping one
//! recurses, however long it is; only parsing nests, and that is bounded by [`MAX_DEPTH`].

mod parse;
#[cfg(test)]
mod tests;

use crate::problem::{clip, did_you_mean, nearest, one_line};
use parse::Parser;
use std::cmp::Ordering;
use std::fmt;

/// Parentheses and calls that may lie inside each other.
pub const MAX_DEPTH: usize = 64;

/// The functions that expressions can call.
pub const FUNCTIONS: [&str; 4] = ["min", "max", "ceil_div", "if_le"];

/// The value of a variable or of an expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A 64-bit integer.
    Int(i64),
    /// A finite double.
    Float(f64),
}

impl Value {
    /// The number as a double; integers beyond 2^53 are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            Value::Int(i) => i as f64,
            Value::Float(x) => x,
        }
    }
}

impl fmt::Display for Value {
    /// The shortest text that reads back as the same value (but for the least integer, whose digits
    /// alone are too large, here as in C++); a float always has a point or an exponent, so that it
    /// stays one in C++.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => write!(f, "{x:?}"),
        }
    }
}

/// What is wrong with an expression, or with its values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExprProblem {
    /// Nothing there.
    #[error("it is empty; write a number, or a variable such as head_dim")]
    Empty,
    /// A character that no expression has.
    #[error(
        "unexpected `{}`; expressions have + - * / ( ), min max ceil_div if_le, numbers and names",
        .0.escape_debug()
    )]
    Character(char),
    /// A number that cannot be read, or is too large.
    #[error("`{text}` is no number: {why}")]
    Number {
        /// The digits.
        text: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// Something else was due here.
    #[error("expected {want}, got {got}")]
    Expected {
        /// What may stand here.
        want: &'static str,
        /// What does.
        got: String,
    },
    /// Too much nesting.
    #[error("more than {MAX_DEPTH} parentheses inside each other; write it flatter")]
    Depth,
    /// A variable that does not exist.
    #[error("unknown variable `{name}`{} (known here: {known})", did_you_mean(nearest))]
    UnknownName {
        /// What was written.
        name: String,
        /// A known one that is close to it.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
    /// A function that does not exist.
    #[error(
        "unknown function `{name}`{} (there are min, max, ceil_div, if_le)",
        did_you_mean(nearest)
    )]
    UnknownFunction {
        /// What was written.
        name: String,
        /// A known one that is close to it.
        nearest: Option<String>,
    },
    /// A wrong number of arguments.
    #[error("`{function}` takes {want} arguments, got {got}")]
    Arguments {
        /// The function.
        function: &'static str,
        /// How many it takes.
        want: &'static str,
        /// How many there were.
        got: usize,
    },
    /// A variable without a value in this case.
    #[error("`{0}` has no value here; it is set only for the stages and kernels that have it")]
    NoValue(String),
    /// An integer beyond 64 bits.
    #[error("`{0}` overflows 64-bit integers; use smaller factors, or a float")]
    Overflow(&'static str),
    /// A zero divisor.
    #[error("`{0}` divides by zero; guard the divisor with max(1, …)")]
    DivisionByZero(&'static str),
    /// An infinite result, or a variable that is not finite.
    #[error("`{0}` is not finite")]
    NotFinite(String),
    /// A float where only integers go.
    #[error("`{what}` takes integers, got the float {got}; divide integers to get an integer")]
    NeedsInteger {
        /// The function, or the place that needs one.
        what: String,
        /// The float.
        got: f64,
    },
}

/// An error with the expression's text, the place in it, and the values that led there.
#[derive(Debug, Clone, PartialEq)]
pub struct ExprError {
    /// The whole expression.
    pub text: String,
    /// Column of the fault, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: ExprProblem,
    /// For an error of evaluation: every variable of the expression, with its value.
    pub values: Box<[(String, Value)]>,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = one_line(&self.text, SHOWN_TEXT);
        write!(f, "expression `{text}`, column {}: ", self.column)?;
        f.write_str(&one_line(&self.problem.to_string(), SHOWN_PROBLEM))?;
        write_values(f, &self.values)
    }
}

impl std::error::Error for ExprError {}

/// Characters of an expression, and of what is wrong with it, that a message shows. A long one is
/// cut, since the column says where to look.
pub(super) const SHOWN_TEXT: usize = 200;
const SHOWN_PROBLEM: usize = SHOWN_KNOWN + 400;

/// Characters of a list of the known variables that a message shows: all of any stage's, and some dozens
/// of a kernel's own tunables.
const SHOWN_KNOWN: usize = 1000;

/// Variables that a message shows with their values.
const SHOWN_VALUES: usize = 12;

/// The names in order, strides of one tensor put together: `batch, q_stride_s/h, k_stride_s/l/h/n`.
fn listed(names: &[&str]) -> String {
    const STRIDE: &str = "_stride_";
    let tensor = |name: &str| name.split_once(STRIDE).map(|(tensor, _)| tensor.to_owned());
    let (mut list, mut last) = (String::new(), None);
    for name in names {
        let of = tensor(name);
        match name.split_once(STRIDE) {
            Some((_, axis)) if of == last => list += &format!("/{axis}"),
            _ if list.is_empty() => list += name,
            _ => list += &format!(", {name}"),
        }
        last = of;
    }
    list
}

/// Writes ` (with a = 1, b = 2)`, or nothing.
fn write_values(f: &mut impl fmt::Write, values: &[(String, Value)]) -> fmt::Result {
    for (i, (name, value)) in values.iter().take(SHOWN_VALUES).enumerate() {
        write!(f, "{}{} = {value}", if i == 0 { " (with " } else { ", " }, clip(name))?;
    }
    if values.len() > SHOWN_VALUES {
        f.write_str(", …")?;
    }
    f.write_str(if values.is_empty() { "" } else { ")" })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Const(Value),
    /// Index into [`Expr::names`].
    Name(usize),
    Neg,
    Add,
    Sub,
    Mul,
    Div,
    /// Of the topmost so many values.
    Min(usize),
    Max(usize),
    CeilDiv,
    /// Of a, b, x, y: x where a <= b, else y.
    IfLe,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    op: Op,
    column: usize,
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    text: String,
    steps: Vec<Step>,
    names: Vec<String>,
}

impl Expr {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`ExprError`]: what is wrong, and at which column.
    pub fn parse(text: &str) -> Result<Expr, ExprError> {
        Parser::new(text).and_then(Parser::parse).map_err(|(column, problem)| ExprError {
            text: text.to_owned(),
            column,
            problem,
            values: Box::default(),
        })
    }

    /// An integer constant.
    pub fn constant(value: i64) -> Expr {
        Expr {
            text: value.to_string(),
            steps: vec![Step { op: Op::Const(Value::Int(value)), column: 1 }],
            names: Vec::new(),
        }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables that it reads, each once, in order of appearance.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Checks that every variable is among `known`.
    ///
    /// # Errors
    /// [`ExprProblem::UnknownName`] with all known ones, and with one that is close to it.
    pub fn check<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> Result<(), ExprError> {
        let known: Vec<&str> = known.into_iter().collect();
        let Some(index) = self.names.iter().position(|n| !known.contains(&n.as_str())) else {
            return Ok(());
        };
        let name = clip(&self.names[index]);
        let nearest = nearest(&name, known.iter().copied());
        let known = one_line(&listed(&known), SHOWN_KNOWN);
        let problem = ExprProblem::UnknownName { name, nearest, known };
        Err(self.error(self.column_of(index), problem, &[]))
    }

    /// The value under an assignment of the variables.
    ///
    /// # Errors
    /// [`ExprError`] with the value of every variable: overflow, division by zero, a variable
    /// without a value, a float where an integer is needed, a result that is not finite.
    pub fn eval(&self, env: &dyn Fn(&str) -> Option<Value>) -> Result<Value, ExprError> {
        let values: Vec<Option<Value>> = self.names.iter().map(|n| env(n)).collect();
        let fail = |column, problem| self.error(column, problem, &values);
        let mut stack: Vec<Value> = Vec::new();
        for Step { op, column } in &self.steps {
            let value = match *op {
                Op::Const(value) => Ok(value),
                Op::Name(i) => match values[i] {
                    None => Err(ExprProblem::NoValue(self.names[i].clone())),
                    Some(Value::Float(x)) if !x.is_finite() => {
                        Err(ExprProblem::NotFinite(self.names[i].clone()))
                    }
                    Some(value) => Ok(value),
                },
                Op::Neg => negate(pop(&mut stack)),
                Op::Min(n) => Ok(extreme(&stack.split_off(stack.len() - n), Ordering::Less)),
                Op::Max(n) => Ok(extreme(&stack.split_off(stack.len() - n), Ordering::Greater)),
                Op::IfLe => {
                    let [y, x, b, a] = [(); 4].map(|()| pop(&mut stack));
                    Ok(if is_at_most(a, b) { x } else { y })
                }
                Op::Add | Op::Sub | Op::Mul | Op::Div | Op::CeilDiv => {
                    let b = pop(&mut stack);
                    binary(*op, pop(&mut stack), b)
                }
            };
            stack.push(value.map_err(|problem| fail(*column, problem))?);
        }
        Ok(pop(&mut stack))
    }

    /// The value, which must be an integer. `what` names the place that needs one.
    ///
    /// # Errors
    /// As [`Expr::eval`], and [`ExprProblem::NeedsInteger`].
    pub fn eval_int(
        &self,
        what: &str,
        env: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<i64, ExprError> {
        match self.eval(env)? {
            Value::Int(i) => Ok(i),
            Value::Float(got) => {
                let values: Vec<_> = self.names.iter().map(|n| env(n)).collect();
                let problem = ExprProblem::NeedsInteger { what: what.to_owned(), got };
                Err(self.error(1, problem, &values))
            }
        }
    }

    /// ` (with a = 1, b = 2)` over the variables of the expression, for messages about its value.
    pub fn describe_values(&self, env: &dyn Fn(&str) -> Option<Value>) -> String {
        let values: Vec<_> = self.names.iter().filter_map(|n| Some((n.clone(), env(n)?))).collect();
        let mut text = String::new();
        write_values(&mut text, &values).expect("writing to a string succeeds");
        text
    }

    fn column_of(&self, name: usize) -> usize {
        self.steps.iter().find(|s| s.op == Op::Name(name)).map_or(1, |s| s.column)
    }

    fn error(&self, column: usize, problem: ExprProblem, values: &[Option<Value>]) -> ExprError {
        let values =
            self.names.iter().zip(values).filter_map(|(n, v)| Some((n.clone(), (*v)?))).collect();
        ExprError { text: self.text.clone(), column, problem, values }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn pop(stack: &mut Vec<Value>) -> Value {
    stack.pop().expect("the parser emits an operand for every operator")
}

fn negate(value: Value) -> Result<Value, ExprProblem> {
    match value {
        Value::Int(i) => i.checked_neg().map(Value::Int).ok_or(ExprProblem::Overflow("-")),
        Value::Float(x) => Ok(Value::Float(-x)),
    }
}

/// Whether a <= b; of integers also beyond 2^53.
fn is_at_most(a: Value, b: Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a <= b,
        _ => a.as_f64() <= b.as_f64(),
    }
}

/// The least or the largest value; a float as soon as one of them is.
fn extreme(values: &[Value], wanted: Ordering) -> Value {
    let ints: Option<Vec<i64>> =
        values.iter().map(|v| if let Value::Int(i) = v { Some(*i) } else { None }).collect();
    match ints {
        Some(ints) => Value::Int(
            ints.into_iter().reduce(|a, b| if b.cmp(&a) == wanted { b } else { a }).unwrap_or(0),
        ),
        None => Value::Float(
            values
                .iter()
                .map(|v| v.as_f64())
                .reduce(|a, b| if b.partial_cmp(&a) == Some(wanted) { b } else { a })
                .unwrap_or(0.0),
        ),
    }
}

fn binary(op: Op, a: Value, b: Value) -> Result<Value, ExprProblem> {
    let sign = match op {
        Op::Add => "+",
        Op::Sub => "-",
        Op::Mul => "*",
        Op::CeilDiv => "ceil_div",
        _ => "/",
    };
    let result = match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            if matches!(op, Op::Div | Op::CeilDiv) && b == 0 {
                return Err(ExprProblem::DivisionByZero(sign));
            }
            let result = match op {
                Op::Add => a.checked_add(b),
                Op::Sub => a.checked_sub(b),
                Op::Mul => a.checked_mul(b),
                Op::CeilDiv => a.checked_div(b).map(|quotient| {
                    // why: `/` truncates, which is the ceiling already where the signs differ.
                    quotient + i64::from(a % b != 0 && (a < 0) == (b < 0))
                }),
                _ => a.checked_div(b),
            };
            return result.map(Value::Int).ok_or(ExprProblem::Overflow(sign));
        }
        _ if op == Op::CeilDiv => {
            let got = if let Value::Float(x) = a { x } else { b.as_f64() };
            return Err(ExprProblem::NeedsInteger { what: sign.to_owned(), got });
        }
        _ => {
            let (a, b) = (a.as_f64(), b.as_f64());
            match op {
                Op::Add => a + b,
                Op::Sub => a - b,
                Op::Mul => a * b,
                _ if b == 0.0 => return Err(ExprProblem::DivisionByZero(sign)),
                _ => a / b,
            }
        }
    };
    if result.is_finite() {
        Ok(Value::Float(result))
    } else {
        Err(ExprProblem::NotFinite(sign.to_owned()))
    }
}
