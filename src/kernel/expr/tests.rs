use super::*;
use proptest::prelude::*;

fn env(name: &str) -> Option<Value> {
    match name {
        "a" => Some(Value::Int(7)),
        "b" => Some(Value::Int(-2)),
        "zero" => Some(Value::Int(0)),
        "big" => Some(Value::Int(i64::MAX)),
        "f" => Some(Value::Float(0.5)),
        "nan" => Some(Value::Float(f64::NAN)),
        _ => None,
    }
}

fn eval(text: &str) -> Result<Value, ExprError> {
    Expr::parse(text)?.eval(&env)
}

#[test]
fn values_by_hand() {
    for (text, want) in [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 3 - 2", 5),
        ("100 / 10 / 5", 2),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("a / b", -3),
        ("--a", 7),
        ("2 - -3", 5),
        ("2 * -3", -6),
        ("ceil_div(7, 2)", 4),
        ("ceil_div(8, 2)", 4),
        ("ceil_div(-7, 2)", -3),
        ("ceil_div(-7, -2)", 4),
        ("ceil_div(0, 5)", 0),
        ("max(64, a)", 64),
        ("min(3, a, b)", -2),
        ("max(1, 2, 3) * min(4, 5)", 12),
        ("-9223372036854775807 - 1", i64::MIN),
    ] {
        assert_eq!(eval(text), Ok(Value::Int(want)), "{text}");
    }
    for (text, want) in [
        ("f * 4", 2.0),
        ("7 / 2.0", 3.5),
        ("7 / 2 * 1.0", 3.0),
        ("1e-3", 1e-3),
        ("1E+2", 100.0),
        (".5 + 1", 1.5),
        ("2. * 3", 6.0),
        ("max(1, 0.5)", 1.0),
        ("min(3, 4.5)", 3.0),
        ("-f", -0.5),
    ] {
        assert_eq!(eval(text), Ok(Value::Float(want)), "{text}");
    }
}

/// `if_le(a, b, x, y)` is x where a <= b, else y, of whatever type that is.
#[test]
fn if_le_by_hand() {
    for (text, want) in [
        ("if_le(1, 2, 10, 20)", Value::Int(10)),
        ("if_le(2, 1, 10, 20)", Value::Int(20)),
        // A tie is x.
        ("if_le(a, 7, 10, 20)", Value::Int(10)),
        ("if_le(b, -2, a, b)", Value::Int(7)),
        ("if_le(0.5, f, 10, 20)", Value::Int(10)),
        ("if_le(f, 0, 10, 20)", Value::Int(20)),
        ("if_le(-1, f, 1.5, 20)", Value::Float(1.5)),
        // The other one's type counts for nothing.
        ("if_le(1, 2, 3, 0.5) / 2", Value::Int(1)),
        ("if_le(2, 1, 3, 0.5) / 2", Value::Float(0.25)),
        // One inside another, in each of the four places, and among operators.
        ("if_le(if_le(1, 2, 5, 6), 5, 1, 2)", Value::Int(1)),
        ("if_le(5, if_le(2, 1, 5, 4), 1, 2)", Value::Int(2)),
        ("if_le(1, 2, if_le(2, 1, 3, 4), 5)", Value::Int(4)),
        ("if_le(2, 1, 3, if_le(1, 1, 4, 5))", Value::Int(4)),
        ("2 + 3 * if_le(a, 8, a - 1, max(a, 9)) - 1", Value::Int(19)),
        // Doubles hold neither of these two.
        ("if_le(big, big - 1, 1, 2)", Value::Int(2)),
        ("if_le(big - 1, big, 1, 2)", Value::Int(1)),
    ] {
        assert_eq!(eval(text), Ok(want), "{text}");
    }
    for (text, column, phrase) in [
        ("if_le()", 1, "`if_le` takes 4 arguments, got 0"),
        ("if_le(1, 2, 3)", 1, "`if_le` takes 4 arguments, got 3"),
        ("1 + if_le(1, 2, 3, 4, 5)", 5, "`if_le` takes 4 arguments, got 5"),
        ("if_lt(1, 2, 3, 4)", 1, "did you mean `if_le`? (there are min, max, ceil_div, if_le)"),
        ("if_le", 1, "`if_le` has no value here"),
        // Both are evaluated: what guards a divisor is `max`.
        ("if_le(zero, 0, 1, a / zero)", 21, "divides by zero; guard the divisor with max(1, …)"),
        ("if_le(nan, 0, 1, 2)", 7, "`nan` is not finite"),
    ] {
        let error = eval(text).unwrap_err();
        assert!(error.to_string().contains(phrase), "{text}: {error}");
        assert_eq!(error.column, column, "{error}");
    }
}

#[test]
fn mistakes_name_the_text_the_column_and_the_mend() {
    for (text, column, phrase) in [
        ("", 1, "it is empty"),
        ("  ", 1, "it is empty"),
        ("1 +", 4, "expected a number, a name or `(`, got the end"),
        ("1 2", 3, "expected an operator or the end, got the number 2"),
        ("(1", 3, "expected an operator or `)`, got the end"),
        ("1)", 2, "expected an operator or the end, got `)`"),
        ("1 % 2", 3, "unexpected `%`"),
        ("é", 1, "unexpected `é`"),
        ("3f", 1, "`3f` is no number"),
        ("0x10", 1, "`0x10` is no number"),
        ("1.2.3", 1, "`1.2.3` is no number"),
        ("1e", 1, "`1e` is no number"),
        ("9223372036854775808", 1, "9223372036854775807"),
        ("1e999", 1, "1.8e308"),
        ("mim(1, 2)", 1, "did you mean `min`?"),
        ("head_dim(2)", 1, "unknown function `head_dim`"),
        ("max(1)", 1, "takes 2 or more arguments, got 1"),
        ("max()", 1, "takes 2 or more arguments, got 0"),
        ("ceil_div(1, 2, 3)", 1, "takes 2 arguments, got 3"),
        ("a / zero", 3, "divides by zero; guard the divisor with max(1, …) (with a = 7, zero = 0)"),
        ("a / (f - 0.5)", 3, "divides by zero"),
        ("ceil_div(a, zero)", 1, "divides by zero"),
        ("big + 1", 5, "`+` overflows 64-bit integers"),
        ("big * 2", 5, "`*` overflows"),
        ("-big - 2", 6, "`-` overflows"),
        ("-(-big - 1)", 1, "`-` overflows"),
        ("(-big - 1) / -1", 12, "`/` overflows"),
        ("ceil_div(-big - 1, -1)", 1, "`ceil_div` overflows"),
        ("1e308 * 10", 7, "`*` is not finite"),
        ("nan", 1, "`nan` is not finite"),
        ("ceil_div(a, f)", 1, "takes integers, got the float 0.5"),
        ("a + nope", 5, "`nope` has no value here"),
    ] {
        let error = eval(text).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(phrase), "{text}: {message}");
        assert!(message.contains(&format!("`{text}`")), "{message}");
        assert_eq!(error.column, column, "{message}");
    }
}

#[test]
fn names_are_listed_once_and_checked() {
    let e = Expr::parse("max(b, a) + a * head_dmi").unwrap();
    assert_eq!(e.names(), ["b", "a", "head_dmi"]);
    let error = e.check(["a", "b", "head_dim", "head_dim_v"]).unwrap_err();
    assert!(error.to_string().contains("did you mean `head_dim`?"), "{error}");
    assert_eq!(error.column, 17);
    // What is close to nothing gets no suggestion; the known ones are listed, strides together.
    let known = ["a", "b", "k_stride_s", "k_stride_h", "v_stride_s", "tile"];
    let error = e.check(known).unwrap_err().to_string();
    let list = "unknown variable `head_dmi` (known here: a, b, k_stride_s/h, v_stride_s, tile)";
    assert!(error.contains(list), "{error}");
    assert!(e.check(["a", "b", "head_dmi"]).is_ok());
    let error = Expr::parse("a + f").unwrap().eval_int("grid[0]", &env).unwrap_err();
    assert!(error.to_string().contains("`grid[0]` takes integers, got the float 7.5"));
}

#[test]
fn bombs_are_refused_or_harmless() {
    let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    assert!(eval(&deep(MAX_DEPTH)).is_ok());
    let error = Expr::parse(&deep(MAX_DEPTH + 1)).unwrap_err();
    assert_eq!((error.problem, error.column), (ExprProblem::Depth, MAX_DEPTH + 1));
    assert!(Expr::parse(&"(".repeat(1 << 20)).is_err());
    assert!(Expr::parse(&"max(1,".repeat(1 << 18)).is_err());
    // Siblings do not add up to a depth, and a long chain needs no recursion.
    assert_eq!(eval(&format!("0{}", "+(1)".repeat(100_000))), Ok(Value::Int(100_000)));
    assert_eq!(eval(&format!("{}1", "-".repeat(1 << 20))), Ok(Value::Int(1)));
}

/// A random expression as a tree, against which the parser is held.
#[derive(Debug, Clone)]
enum Tree {
    Int(i64),
    Float(f64),
    Var(&'static str),
    Neg(Box<Tree>),
    Bin(char, Box<Tree>, Box<Tree>),
    Call(&'static str, Vec<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (0i64..6).prop_map(Tree::Int),
        (0..=i64::MAX).prop_map(Tree::Int),
        Just(Tree::Int(i64::MAX)),
        (0.0f64..1e3).prop_map(Tree::Float),
        Just(Tree::Float(1e300)),
        prop::sample::select(vec!["a", "b", "zero", "big", "f"]).prop_map(Tree::Var),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|t| Tree::Neg(Box::new(t))),
            (prop::sample::select(vec!['+', '-', '*', '/']), pair.clone())
                .prop_map(|(c, (a, b))| Tree::Bin(c, Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Tree::Call("ceil_div", vec![a, b])),
            (prop::sample::select(vec!["min", "max"]), prop::collection::vec(inner.clone(), 2..4))
                .prop_map(|(f, args)| Tree::Call(f, args)),
            prop::collection::vec(inner, 4).prop_map(|args| Tree::Call("if_le", args)),
        ]
    })
}

impl Tree {
    /// Text with no more parentheses than precedence needs. `level` 0 sum, 1 product, 2 unary.
    fn print(&self, level: u32) -> String {
        let (own, text) = match self {
            Tree::Int(i) => (3, i.to_string()),
            Tree::Float(x) => (3, format!("{x:?}")),
            Tree::Var(name) => (3, name.to_string()),
            Tree::Neg(t) => (2, format!("-{}", t.print(2))),
            Tree::Bin(c @ ('+' | '-'), a, b) => (0, format!("{} {c} {}", a.print(0), b.print(1))),
            Tree::Bin(c, a, b) => (1, format!("{}{c}{}", a.print(1), b.print(2))),
            Tree::Call(f, args) => {
                let args: Vec<_> = args.iter().map(|t| t.print(0)).collect();
                (3, format!("{f}({})", args.join(", ")))
            }
        };
        if own < level { format!("({text})") } else { text }
    }

    /// Direct evaluation: exact integers in 128 bits, doubles; `None` for any error.
    fn direct(&self) -> Option<Value> {
        let int = |x: i128| i64::try_from(x).ok().map(Value::Int);
        let float = |x: f64| x.is_finite().then_some(Value::Float(x));
        match self {
            Tree::Int(i) => Some(Value::Int(*i)),
            Tree::Float(x) => Some(Value::Float(*x)),
            Tree::Var(name) => env(name),
            Tree::Neg(t) => match t.direct()? {
                Value::Int(i) => int(-(i as i128)),
                Value::Float(x) => float(-x),
            },
            Tree::Bin(c, a, b) => match (a.direct()?, b.direct()?) {
                (Value::Int(a), Value::Int(b)) => {
                    let (a, b) = (a as i128, b as i128);
                    match c {
                        '+' => int(a + b),
                        '-' => int(a - b),
                        '*' => int(a * b),
                        _ if b == 0 => None,
                        _ => int(a / b),
                    }
                }
                (a, b) => {
                    let (a, b) = (a.as_f64(), b.as_f64());
                    match c {
                        '+' => float(a + b),
                        '-' => float(a - b),
                        '*' => float(a * b),
                        _ => float(a / b),
                    }
                }
            },
            Tree::Call("ceil_div", args) => match (args[0].direct()?, args[1].direct()?) {
                (Value::Int(a), Value::Int(b)) if b != 0 => {
                    let (a, b) = (a as i128, b as i128);
                    let (a, b) = if b < 0 { (-a, -b) } else { (a, b) };
                    int(-(-a).div_euclid(b))
                }
                _ => None,
            },
            Tree::Call(f, args) => {
                let values = args.iter().map(Tree::direct).collect::<Option<Vec<_>>>()?;
                let ints: Vec<i64> = values
                    .iter()
                    .filter_map(|v| if let Value::Int(i) = v { Some(*i) } else { None })
                    .collect();
                if *f == "if_le" {
                    let is_at_most = match (values[0], values[1]) {
                        (Value::Int(a), Value::Int(b)) => a <= b,
                        (a, b) => a.as_f64() <= b.as_f64(),
                    };
                    return Some(if is_at_most { values[2] } else { values[3] });
                }
                let floats = values.iter().map(|v| v.as_f64());
                match (*f, ints.len() == values.len()) {
                    ("min", true) => ints.into_iter().min().map(Value::Int),
                    (_, true) => ints.into_iter().max().map(Value::Int),
                    ("min", _) => Some(Value::Float(floats.fold(f64::INFINITY, f64::min))),
                    _ => Some(Value::Float(floats.fold(f64::NEG_INFINITY, f64::max))),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    /// Printing a tree, parsing and evaluating it is the same as evaluating it directly.
    #[test]
    fn parsed_text_means_what_the_tree_means(tree in tree()) {
        let text = tree.print(0);
        let parsed = Expr::parse(&text);
        prop_assert!(parsed.is_ok(), "{text}: {parsed:?}");
        prop_assert_eq!(parsed.unwrap().eval(&env).ok(), tree.direct(), "{}", text);
    }

    /// No text makes the parser or the evaluation panic.
    #[test]
    fn any_text_is_answered(text in "[-+*/(), .0-9a-f_é]{0,40}|max\\(.{0,20}") {
        let _ = Expr::parse(&text).and_then(|e| e.eval(&env));
    }
}
