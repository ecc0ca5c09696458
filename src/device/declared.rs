//! The kernels that a source's text declares: their names, the namespaces and templates around them, and
//! what `__launch_bounds__` says of each.
//!
//! The text is read by its tokens, not compiled. Where it has been preprocessed, with `__global__` and
//! `__launch_bounds__` left as they are, what is read is what the compiler sees.

use std::ops::Range;

/// A kernel that a text declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// The namespaces around it, outermost first; a nameless one is an empty name.
    pub(crate) namespaces: Vec<String>,
    pub(crate) name: String,
    /// `template <typename T, int N>`; empty where it is no template.
    pub(crate) template: String,
    /// `<float, 4>` of an explicit specialisation; empty elsewhere.
    pub(crate) arguments: String,
    /// The first argument of `__launch_bounds__`.
    pub(crate) bounds: Option<String>,
}

impl Declared {
    /// The name with its namespaces, as an entry says it.
    pub(crate) fn path(&self) -> String {
        let names = self.namespaces.iter().filter(|name| !name.is_empty());
        names.map(|name| format!("{name}::")).collect::<String>() + &self.name
    }
}

/// A scope that a brace has opened.
enum Scope {
    /// So many names of namespaces.
    Namespace(usize),
    /// `extern "C" { … }`: declarations as outside of it.
    Linkage,
    /// A body: nothing in it declares a kernel.
    Body,
}

/// The kernels of a text in order.
pub(crate) fn kernels(text: &str) -> Vec<Declared> {
    let tokens = tokens(text);
    let word = |at: usize| tokens.get(at).map_or("", |range| &text[range.clone()]);
    let (mut found, mut namespaces, mut scopes) = (Vec::new(), Vec::<String>::new(), Vec::new());
    let (mut begin, mut at) = (0, 0);
    while at < tokens.len() {
        let outside = !scopes.iter().any(|scope| matches!(scope, Scope::Body));
        match word(at) {
            "(" | "[" if outside => at = closed(&tokens, text, at),
            ";" => {
                if outside {
                    found.extend(kernel(text, &tokens[begin..at], &namespaces));
                }
                begin = at + 1;
            }
            "}" => {
                if let Some(Scope::Namespace(count)) = scopes.pop() {
                    namespaces.truncate(namespaces.len() - count);
                }
                begin = at + 1;
            }
            "{" => {
                let head: Vec<&str> = (begin..at).map(word).collect();
                scopes.push(match namespace(&head) {
                    Some(names) if outside => {
                        namespaces.extend(names.iter().cloned());
                        Scope::Namespace(names.len())
                    }
                    None if outside && head.len() == 2 && head[0] == "extern" => Scope::Linkage,
                    _ => {
                        if outside {
                            found.extend(kernel(text, &tokens[begin..at], &namespaces));
                        }
                        Scope::Body
                    }
                });
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The names of a namespace whose head stands before a brace; one nameless is one empty name.
fn namespace(head: &[&str]) -> Option<Vec<String>> {
    let head = head.strip_prefix(&["inline"]).unwrap_or(head);
    let names: Vec<&str> = head.strip_prefix(&["namespace"])?.to_vec();
    if names.is_empty() {
        return Some(vec![String::new()]);
    }
    let own = names.into_iter().filter(|word| !matches!(*word, ":" | "::" | "inline"));
    Some(own.map(str::to_owned).collect())
}

/// The kernel of a declaration, where it is one.
fn kernel(text: &str, tokens: &[Range<usize>], namespaces: &[String]) -> Option<Declared> {
    let word = |at: usize| tokens.get(at).map_or("", |range| &text[range.clone()]);
    if !(0..tokens.len()).any(|at| word(at) == "__global__") {
        return None;
    }
    let span = |from: usize, to: usize| {
        let (first, last) = (tokens.get(from)?, tokens.get(to.checked_sub(1)?)?);
        text.get(first.start..last.end).map(one_spaced)
    };
    let (mut at, mut template, mut bounds) = (0, String::new(), None);
    while at < tokens.len() {
        match word(at) {
            "template" if word(at + 1) == "<" => {
                let end = angle(tokens, text, at + 1)?;
                template = span(at, end)?;
                at = end;
            }
            "__launch_bounds__" if word(at + 1) == "(" => {
                let end = closed(tokens, text, at + 1);
                let mut comma = at + 2;
                while comma < end && word(comma) != "," {
                    comma = match word(comma) {
                        "(" | "[" | "{" => closed(tokens, text, comma) + 1,
                        "<" => {
                            angle(tokens, text, comma).filter(|to| *to <= end).unwrap_or(comma + 1)
                        }
                        _ => comma + 1,
                    };
                }
                bounds = span(at + 2, comma);
                at = end + 1;
            }
            "__attribute__" | "__align__" | "alignas" | "__declspec" if word(at + 1) == "(" => {
                at = closed(tokens, text, at + 1) + 1;
            }
            "[" => at = closed(tokens, text, at) + 1,
            "(" => break,
            _ => at += 1,
        }
    }
    if word(at) != "(" || at == 0 {
        return None;
    }
    // Before the parameters stands the name, of an explicit specialisation with its arguments.
    let (mut name, mut arguments) = (at - 1, String::new());
    if word(name) == ">" {
        let mut open = name;
        while open > 0 && angle(tokens, text, open) != Some(at) {
            open -= 1;
        }
        arguments = span(open, at)?;
        name = open.checked_sub(1)?;
    }
    let is_name = |word: &str| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if !is_name(word(name)) {
        return None;
    }
    Some(Declared {
        namespaces: namespaces.to_vec(),
        name: word(name).to_owned(),
        template,
        arguments,
        bounds,
    })
}

/// A piece of text in one line.
fn one_spaced(text: &str) -> String {
    // Lines that a preprocessor adds are no part of a declaration.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// The place of the bracket that closes the one at `at`; the end where none does.
fn closed(tokens: &[Range<usize>], text: &str, at: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match &text[token.clone()] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len()
}

/// One past the `>` that closes the `<` at `at`; `None` where none does.
fn angle(tokens: &[Range<usize>], text: &str, at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut i = at;
    while i < tokens.len() {
        match &text[tokens[i].clone()] {
            "<" => depth += 1,
            ">" => depth = depth.checked_sub(1)?,
            "(" | "[" | "{" => i = closed(tokens, text, i),
            ";" => return None,
            _ => {}
        }
        i += 1;
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// Names, numbers, and every other character alone (`::` is one); no comments, no directives. A string or
/// a character is one token.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let (mut found, mut at, mut fresh) = (Vec::new(), 0, true);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let start = at;
        match rest[0] {
            b'\n' => {
                fresh = true;
                at += 1;
                continue;
            }
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ if rest.starts_with(b"//") => {
                at += line_end(rest);
                continue;
            }
            _ if rest.starts_with(b"/*") => {
                at += find(&rest[2..], b"*/").map_or(rest.len(), |end| end + 4);
                continue;
            }
            b'#' if fresh => {
                at += line_end(rest);
                continue;
            }
            b'R' if rest.get(1) == Some(&b'"') => at += raw_string(rest),
            quote @ (b'"' | b'\'') => at += quoted(rest, quote),
            b if is_word(b) => {
                // A number may hold a quote between its digits.
                let digit = b.is_ascii_digit();
                while at < bytes.len()
                    && (is_word(bytes[at]) || digit && b"'.".contains(&bytes[at]))
                {
                    at += 1;
                }
            }
            _ if rest.starts_with(b"::") => at += 2,
            _ => at += 1,
        }
        fresh = false;
        found.push(start..at);
    }
    found
}

/// Bytes to the end of the line, lines that a backslash goes on with included.
fn line_end(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() && !(rest[at] == b'\n' && (at == 0 || rest[at - 1] != b'\\')) {
        at += 1;
    }
    at
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote && rest[at] != b'\n' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Bytes of `R"delimiter( … )delimiter"`.
fn raw_string(rest: &[u8]) -> usize {
    let Some(open) = rest.iter().position(|b| *b == b'(') else { return 2 };
    let close = [b")", &rest[2..open], b"\""].concat();
    find(&rest[open..], &close).map_or(rest.len(), |at| open + at + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        let one = |k: Declared| {
            let name = [k.namespaces, vec![k.name]].concat().join("::");
            let bounds = k.bounds.unwrap_or_else(|| "-".to_owned());
            format!("{} {name}{} {bounds}", k.template, k.arguments).trim().to_owned()
        };
        kernels(text).into_iter().map(one).collect()
    }

    #[test]
    fn bounds_are_found_in_every_spelling() {
        for text in [
            "__global__ void __launch_bounds__(256) k(int *p) { p[0] = 1; }",
            "__global__ __launch_bounds__(256) void k(int *p);",
            "__launch_bounds__(256) __global__ void k(int *p) {}",
            "extern \"C\" __global__ void __launch_bounds__(256, 2) k(int) {}",
            "extern \"C\" { __global__ void __launch_bounds__(256, 2, 1) k(int) {} }",
            "static __global__ __attribute__((used)) void\n__launch_bounds__( /* a */ 256 ) // b\nk ()\n{ }",
            "#define X __launch_bounds__(1) \\\n  __global__ void no()\n__global__ void __launch_bounds__(256) k() {}",
            "struct S { int a; }; const char *s = \"{\"; __global__ void __launch_bounds__(256) k(S) {}",
            "const char *s = R\"x({\")\")x\"; char c = '{'; __global__ void __launch_bounds__(256) k() {}",
        ] {
            assert_eq!(list(text), ["k 256"], "{text}");
        }
    }

    #[test]
    fn templates_namespaces_and_specialisations() {
        let text = "namespace a::b { namespace { constexpr int N = 2;\n\
                    template <typename T, int W = (3 > 2 ? 4 : 1)>\n# 7 \"x.h\"\n\
                    __global__ void __launch_bounds__(W < 2 ? f<1, 2>(3, 4) : W * N, 2) k(T *p) { if (p) {} }\n\
                    template <> __global__ void __launch_bounds__(64) k<float, 8>(float *p) {} }\n\
                    __global__ void plain(int) {} } inline namespace v1 { __global__ void last() {} }";
        assert_eq!(
            list(text),
            [
                "template <typename T, int W = (3 > 2 ? 4 : 1)> a::b::::k W < 2 ? f<1, 2>(3, 4) : W * N",
                "template <> a::b::::k<float, 8> 64",
                "a::b::plain -",
                "v1::last -"
            ]
        );
        assert_eq!(kernels(text)[0].path(), "a::b::k");
    }

    #[test]
    fn what_is_no_kernel_is_left_out() {
        let text = "__device__ int f(int x) { return x; } void host() { __global__ void no(); }\n\
                    struct S { void __global__ no(); }; using G = int; // __global__ void no() {}\n";
        assert!(list(text).is_empty(), "{:?}", list(text));
        for broken in [
            "__global__",
            "__global__ void (",
            "template <",
            "} } __global__ void k(",
            "{",
            "\"",
            "R\"",
        ] {
            kernels(broken);
        }
    }
}
