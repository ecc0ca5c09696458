//! Reading an expression's text: characters to tokens, tokens to postfix steps.

use super::{Expr, ExprProblem, FUNCTIONS, MAX_DEPTH, Op, Step, Value};
use crate::problem::nearest;
use std::fmt;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(Value),
    Name(String),
    Sign(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Number(v) => write!(f, "the number {v}"),
            Token::Name(n) => write!(f, "`{n}`"),
            Token::Sign(c) => write!(f, "`{c}`"),
        }
    }
}

/// A problem at a column.
pub(super) type At<T> = Result<T, (usize, ExprProblem)>;

pub(super) struct Parser {
    text: String,
    /// Tokens with their columns.
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
    steps: Vec<Step>,
    names: Vec<String>,
}

impl Parser {
    pub(super) fn new(text: &str) -> At<Parser> {
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Err((1, ExprProblem::Empty));
        }
        let text = text.to_owned();
        Ok(Parser { text, tokens, next: 0, depth: 0, steps: Vec::new(), names: Vec::new() })
    }

    pub(super) fn parse(mut self) -> At<Expr> {
        self.sum()?;
        if self.next < self.tokens.len() {
            return Err(self.unexpected("an operator or the end"));
        }
        Ok(Expr { text: self.text, steps: self.steps, names: self.names })
    }

    fn column(&self) -> usize {
        match self.tokens.get(self.next) {
            Some((_, column)) => *column,
            None => self.text.chars().count() + 1,
        }
    }

    fn unexpected(&self, want: &'static str) -> (usize, ExprProblem) {
        let got = self.tokens.get(self.next).map_or("the end".into(), |(t, _)| t.to_string());
        (self.column(), ExprProblem::Expected { want, got })
    }

    fn peek(&self) -> Option<char> {
        match self.tokens.get(self.next) {
            Some((Token::Sign(c), _)) => Some(*c),
            _ => None,
        }
    }

    /// Takes a sign if it is next, and says at which column.
    fn take(&mut self, sign: char) -> Option<usize> {
        let column = self.column();
        (self.peek() == Some(sign)).then(|| {
            self.next += 1;
            column
        })
    }

    fn sum(&mut self) -> At<()> {
        self.product()?;
        loop {
            let (op, column) = match self.peek() {
                Some('+') => (Op::Add, self.take('+')),
                Some('-') => (Op::Sub, self.take('-')),
                _ => return Ok(()),
            };
            self.product()?;
            self.steps.push(Step { op, column: column.unwrap_or(1) });
        }
    }

    fn product(&mut self) -> At<()> {
        self.unary()?;
        loop {
            let (op, column) = match self.peek() {
                Some('*') => (Op::Mul, self.take('*')),
                Some('/') => (Op::Div, self.take('/')),
                _ => return Ok(()),
            };
            self.unary()?;
            self.steps.push(Step { op, column: column.unwrap_or(1) });
        }
    }

    fn unary(&mut self) -> At<()> {
        let mut minuses = Vec::new();
        while let Some(column) = self.take('-') {
            minuses.push(column);
        }
        self.primary()?;
        self.steps.extend(minuses.into_iter().rev().map(|column| Step { op: Op::Neg, column }));
        Ok(())
    }

    fn primary(&mut self) -> At<()> {
        let column = self.column();
        match self.tokens.get(self.next).map(|(token, _)| token.clone()) {
            Some(Token::Number(value)) => {
                self.next += 1;
                self.steps.push(Step { op: Op::Const(value), column });
                Ok(())
            }
            Some(Token::Name(name)) => {
                self.next += 1;
                if self.peek() == Some('(') {
                    return self.call(name, column);
                }
                let index = self.names.iter().position(|n| *n == name).unwrap_or_else(|| {
                    self.names.push(name);
                    self.names.len() - 1
                });
                self.steps.push(Step { op: Op::Name(index), column });
                Ok(())
            }
            Some(Token::Sign('(')) => {
                self.nested(|p| {
                    p.sum()?;
                    Ok(1)
                })?;
                Ok(())
            }
            _ => Err(self.unexpected("a number, a name or `(`")),
        }
    }

    fn call(&mut self, name: String, column: usize) -> At<()> {
        let Some(function) = FUNCTIONS.into_iter().find(|f| *f == name) else {
            let nearest = nearest(&name, FUNCTIONS);
            return Err((column, ExprProblem::UnknownFunction { name, nearest }));
        };
        let got = self.nested(|p| {
            if p.peek() == Some(')') {
                return Ok(0);
            }
            p.sum()?;
            let mut count = 1;
            while p.take(',').is_some() {
                p.sum()?;
                count += 1;
            }
            Ok(count)
        })?;
        let op = match (function, got) {
            ("min", 2..) => Op::Min(got),
            ("max", 2..) => Op::Max(got),
            ("ceil_div", 2) => Op::CeilDiv,
            ("if_le", 4) => Op::IfLe,
            _ => {
                let want = match function {
                    "ceil_div" => "2",
                    "if_le" => "4",
                    _ => "2 or more",
                };
                return Err((column, ExprProblem::Arguments { function, want, got }));
            }
        };
        self.steps.push(Step { op, column });
        Ok(())
    }

    /// Parses `( inside )`, one level deeper.
    fn nested(&mut self, inside: impl FnOnce(&mut Self) -> At<usize>) -> At<usize> {
        let column = self.column();
        self.take('(');
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((column, ExprProblem::Depth));
        }
        let count = inside(self)?;
        if self.take(')').is_none() {
            return Err(self.unexpected("an operator or `)`"));
        }
        self.depth -= 1;
        Ok(count)
    }
}

fn tokens(text: &str) -> At<Vec<(Token, usize)>> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let column = i + 1;
        if c.is_whitespace() {
            i += 1;
        } else if "+-*/(),".contains(c) {
            tokens.push((Token::Sign(c), column));
            i += 1;
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end = run(&chars, i, |c| c.is_ascii_alphanumeric() || c == '_');
            tokens.push((Token::Name(chars[i..end].iter().collect()), column));
            i = end;
        } else if c.is_ascii_digit() || c == '.' {
            let end = number_end(&chars, i);
            let digits: String = chars[i..end].iter().collect();
            tokens.push((Token::Number(number(&digits).map_err(|p| (column, p))?), column));
            i = end;
        } else {
            return Err((column, ExprProblem::Character(c)));
        }
    }
    Ok(tokens)
}

fn run(chars: &[char], from: usize, belongs: impl Fn(char) -> bool) -> usize {
    from + chars[from..].iter().take_while(|c| belongs(**c)).count()
}

/// The end of everything that hangs together with a number, an exponent's sign included.
fn number_end(chars: &[char], from: usize) -> usize {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let end = run(chars, from, word);
    let exponent = matches!(chars.get(end.wrapping_sub(1)), Some('e' | 'E'))
        && matches!(chars.get(end), Some('+' | '-'));
    if exponent { run(chars, end + 1, word) } else { end }
}

fn number(text: &str) -> Result<Value, ExprProblem> {
    let fail = |why| ExprProblem::Number { text: text.to_owned(), why };
    if text.chars().all(|c| c.is_ascii_digit()) {
        return text
            .parse()
            .map(Value::Int)
            .map_err(|_| fail("integers end at 9223372036854775807 (64 bits)"));
    }
    let plain = text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse::<f64>() {
        Ok(x) if plain && x.is_finite() => Ok(Value::Float(x)),
        Ok(_) if plain => Err(fail("floats end at about 1.8e308")),
        _ => Err(fail("write decimal digits, such as 64, 0.5 or 1e-6")),
    }
}
